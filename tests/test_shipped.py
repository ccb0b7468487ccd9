"""What a clone and a release have besides code: a small real zoo, recipes with their sizes, small generators, a version."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml

import paramgen
from paramgen.cli.main import main
from paramgen.core.paths import find_zoo, list_configs
from paramgen.core.samples import read_samples
from paramgen.core.zoo import Zoo
from paramgen.generators.loading import load_generator

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import release_generators  # noqa: E402
import zoo_sizes  # noqa: E402

FIRST = (ROOT / "checkpoints_zoo" / "README.md").read_text().split("```bash\n")[1].split("```")[0].splitlines()
SMALLER = {
    "fit": ["--trainer.max_steps", "40", "--quality.sample_every", "0", "--trainer.enable_progress_bar", "false"],
    "sample": ["--overwrite", "true"],
    "evaluate": ["--baselines", "[soup-2]"],
}


def test_a_command_runs_without_any_words(capsys):
    assert main(["configs"]) == 0
    assert "digits_small" in capsys.readouterr().out


def test_the_zoo_in_git_is_real_small_and_complete():
    zoo = Zoo(ROOT / "checkpoints_zoo" / "digits_small")
    assert zoo.verify() == []
    assert [len(zoo.indices(split)) for split in ("train", "val", "heldout")] == [20, 20, 20]
    assert sum(path.stat().st_size for path in zoo.path.iterdir()) < 500_000
    assert zoo.goodness(range(60), "val").min() > 0.8
    recipe = yaml.safe_load(list_configs("zoo")["digits_small"].read_text())
    assert {k: zoo.meta["recipe"][k] for k in ("runs", "checkpoints", "save_every", "epochs")} == {
        k: recipe[k] for k in ("runs", "checkpoints", "save_every", "epochs")
    }
    assert zoo.task_config["init_args"]["network_args"] == recipe["task"]["init_args"]["network_args"]


def test_git_keeps_the_shipped_zoo_and_ignores_others():
    ignored = lambda name: subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode  # noqa: E731
    if ignored("runs/x") != 0:
        pytest.skip("not a git checkout")
    assert ignored("checkpoints_zoo/digits_small/run0000_step0000004.safetensors") == 1
    assert ignored("checkpoints_zoo/README.md") == 1
    assert ignored("checkpoints_zoo/mine/zoo.json") == 0


def test_the_first_commands_need_no_collection_in_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert find_zoo("digits_small") == ROOT / "checkpoints_zoo" / "digits_small"
    for line in FIRST:
        program, command, *words = line.split()
        assert program == "paramgen"
        assert main([command, *words, *SMALLER[command]]) == 0, capsys.readouterr().err
    generator, zoo = tmp_path / "runs" / "first" / "last.ckpt", Zoo("digits_small")
    drawn = read_samples("runs/first/samples", zoo).weights
    slim = tmp_path / "slim.ckpt"
    assert main(["consolidate", "--ckpt_path", str(generator), "--out", str(slim), "--weights_only", "true"]) == 0
    half = release_generators.consolidate(str(generator), str(tmp_path / "half.ckpt"), weights_only=True, half=True)
    assert half.stat().st_size < 0.6 * slim.stat().st_size < 0.3 * generator.stat().st_size
    saved = torch.load(half, weights_only=True)
    assert not {"optimizer_states", "lr_schedulers", "current_model_state"} & saved.keys()
    assert main(["sample", "--ckpt_path", str(half), "--n", "50", "--out", "halves"]) == 0
    halves = read_samples("halves", zoo).weights
    assert (halves - drawn).norm() < 0.02 * drawn.norm()
    assert main(["consolidate", "--ckpt_path", str(generator), "--out", "x.ckpt", "--half", "true"]) == 2
    assert "half needs weights_only" in capsys.readouterr().err


@pytest.mark.parametrize("name", release_generators.GENERATORS)
def test_a_released_generator_is_small_and_samples_without_its_zoo(name, tmp_path):
    path = release_generators.release(name, "digits_small", tmp_path, {"trainer.max_steps": 1})
    assert path.stat().st_size < release_generators.LIMIT
    (state,) = load_generator(path).sample(1)
    assert state.keys() == Zoo("digits_small").full(0).keys()


def test_a_weight_that_half_precision_cannot_hold_stays_as_it_was(tmp_path):
    from paramgen.cli.commands.consolidate import _halved

    given = {"state_dict": {"large": torch.tensor([1e6]), "small": torch.tensor([0.5]), "step": torch.tensor(3)}}
    kept = _halved(given)["state_dict"]
    assert [kept[name].dtype for name in given["state_dict"]] == [torch.float32, torch.float16, torch.int64]


def test_the_sizes_of_all_recipes_are_in_the_readme():
    text = zoo_sizes.README.read_text()
    for name in list_configs("zoo"):
        assert f"--config {name}`" in text, f"{name}: run python benchmarks/zoo_sizes.py"
    for name in ("digits_small", "digits_relabel"):
        assert zoo_sizes.row(name, list_configs("zoo")[name]) in text


def test_the_version_is_that_of_the_installation_and_comes_from_tags():
    assert paramgen.__version__ == version("paramgen")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["tool"]["hatch"]["version"]["source"] == "vcs"
    assert any(needed.startswith("hatch-vcs") for needed in settings["build-system"]["requires"])


@pytest.mark.parametrize(
    "path", [*(ROOT / ".github").rglob("*.yml"), ROOT / "CITATION.cff"], ids=lambda path: path.name
)
def test_forms_and_citation_are_valid_yaml_with_their_required_fields(path):
    content = yaml.safe_load(path.read_text())
    if path.name == "CITATION.cff":
        assert {"cff-version", "message", "title", "authors"} <= content.keys()
    elif path.name != "config.yml":
        assert {"name", "description", "body"} <= content.keys()
        assert all("label" in part["attributes"] for part in content["body"])
