"""Other packages add backends, tasks, codecs and configs: examples/my_backend is built, installed and used as its README says."""

import importlib
import json
import os
import re
import shlex
import sys
import zipfile
from pathlib import Path

import hatchling.build
import pytest

import paramgen
from paramgen.cli.main import main
from paramgen.core.plugins import load_plugins, plugin_configs
from paramgen.core.trust import UntrustedError, find_class

EXAMPLE = Path(__file__).parents[1] / "examples/my_backend"
BACKEND = "my_backend.backend.LowRankGaussian"
SMALLER = {
    "configs": [],
    "collect": ["--runs", "4", "--checkpoints", "3", "--epochs", "2", "--heldout_runs", "1"],
    "fit": ["--trainer.max_steps", "40", "--quality.sample_every", "10", "--trainer.logger", "false"],
    "sample": ["--n", "4"],
    "evaluate": ["--n", "4", "--baselines", "[soup-2]"],
}


def forget():
    """Look for installed packages again."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_backend"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    load_plugins.cache_clear()
    plugin_configs.cache_clear()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages, on Python's path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    forget()
    yield folder
    forget()


def install(site, tmp_path):
    """The example's wheel, built as pip builds it and unpacked as pip unpacks it."""
    before = os.getcwd()
    os.chdir(EXAMPLE)
    try:
        wheel = hatchling.build.build_wheel(str(tmp_path))
    finally:
        os.chdir(before)
    zipfile.ZipFile(tmp_path / wheel).extractall(site)
    forget()


def test_the_example_runs_as_its_readme_says_without_trust(site, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UntrustedError):
        find_class(BACKEND, paramgen.ParameterGenerator, "backend")
    install(site, tmp_path)
    assert str(find_class(BACKEND, paramgen.ParameterGenerator, "backend").__module__) == "my_backend.backend"
    first, used = re.findall(r"```bash\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    assert first == "pip install --editable examples/my_backend\n"
    for line in used.splitlines():
        program, command, *words = shlex.split(line)
        assert program == "paramgen"
        assert main([command, *words, *SMALLER[command]]) == 0, (line, capsys.readouterr().err)
    output = capsys.readouterr()
    assert "  low_rank_gaussian" in output.out
    assert "  digit_autoencoders" in output.out
    assert "--trust" not in output.out + output.err
    zoo = paramgen.Zoo("digit_autoencoders")
    generator = paramgen.load_generator("fit/last.ckpt")
    assert (type(generator).__name__, type(generator.codec).__name__) == ("LowRankGaussian", "TensorCodec")
    assert generator.codec.shape == (4, 512)
    tokens = generator.codec.encode_many([zoo[0]])
    assert all((tensor - zoo[0][name]).abs().max() < 1e-5 for name, tensor in generator.codec.decode(tokens[0]).items())
    rows = {
        row["name"]: row["values"]["mean"] for row in json.loads(Path("runs/evaluate/results.json").read_text())["rows"]
    }
    assert 0 < rows["samples"] < 2 * rows["zoo"]
    assert main(["doctor"]) == 0
    assert "backend 'low_rank_gaussian' of my-backend 0.1.0: yes" in capsys.readouterr().out


def test_a_package_that_cannot_be_imported_is_named_and_stops_nothing(site, caplog):
    metadata = site / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[paramgen.codecs]\nnew = nowhere_at_all:Codec\n[paramgen.configs]\nnew = nowhere_at_all\n"
    )
    forget()
    (plugin,) = [plugin for plugin in load_plugins() if plugin.package == "broken 1.0"]
    assert "No module named 'nowhere_at_all'" in plugin.problem
    assert "the codec 'new' of broken 1.0 cannot be used: ModuleNotFoundError" in caplog.text
    assert main(["configs", "--folder", "trainer"]) == 0
