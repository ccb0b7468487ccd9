"""What the commands do, from Python."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from paramgen.api import ClassificationTask, Zoo, collect, evaluate, fit, load_generator, read_samples, sample
from paramgen.collect.train import OptimSettings
from paramgen.errors import ParamgenError

README = Path(__file__).parents[1] / "README.md"


def test_a_zoo_is_collected_learnt_and_its_generator_sampled_and_evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = ClassificationTask(network_args={"hidden": [12]})
    zoo = collect(task, "zoo", runs=3, checkpoints=8, epochs=2, heldout_runs=1, finetune=OptimSettings(lr=1e-3))
    assert isinstance(zoo, Zoo)
    assert len(zoo) == 24
    settings = {
        "data.zoo": "zoo",
        "trainer.max_steps": 20,
        "trainer.logger": False,
        "quality.sample_every": 0,
        "checkpoint.dirpath": "fit",
    }
    generator = fit("pdiff_digits_mlp", settings)
    assert generator.fit_command.startswith("paramgen fit --config pdiff_digits_mlp --data.zoo zoo")
    task.build().load_state_dict(generator.sample(2)[0], strict=True)
    assert load_generator("fit/last.ckpt").fit_config == generator.fit_config
    folder = sample("fit/last.ckpt", n=5, out="samples")
    assert len(read_samples(folder, zoo).weights) == 5
    results = evaluate("zoo", str(folder), out="report", baselines="soup-2", n=5)
    assert [row.name for row in results.rows] == ["zoo", "held-out runs", "samples", "soup-2"]
    run_readme({"ClassificationTask()": "task", "n=100": "n=3", "digits_mlp_trajectory": "zoo"}, {"task": task})
    with pytest.raises(ParamgenError, match="trainer"):
        fit("pdiff_digits_mlp", {**settings, "trainer.max_stepss": 3})


def run_readme(replacements, names):
    """The Python of the README, on a smaller zoo and network."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for old, new in {"runs/lightning_logs/version_0/checkpoints/last.ckpt": "fit/last.ckpt", **replacements}.items():
        assert old in code
        code = code.replace(old, new)
    exec(code, names)
    assert Path("python/report/results.json").exists()


def test_the_readme_starts_with_the_demo_and_has_one_picture_and_one_table_of_four_rows():
    text = README.read_text()
    assert text.index("make demo ") < text.index("make test ") < text.index("![") < text.index("paramgen fit")
    assert text.count("![") == 1
    assert len(re.findall(r"^\| (?!---|trained)", text, re.MULTILINE)) == 4


def test_readme_links_lead_to_files():
    links = re.findall(r"\]\((docs/[^)#]+)", README.read_text())
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "paramgen", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
