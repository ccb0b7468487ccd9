"""A comparison of other settings is another comparison: what differs is made again or refused, what does not is used again."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from gaussian_backend import GaussianBackend  # noqa: F401  registers it
from measured import folder_of, make_zoo
from paramgen.cli.commands.compare import main as compare
from paramgen.cli.commands.compare_steps import GeneratorSource, ZooSource
from paramgen.cli.main import main
from paramgen.core.locks import LOCK, TEMPORARY
from paramgen.core.made import RecordedResult
from paramgen.core.samples import read_samples
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError

FIT = {
    "model": {"class_path": "GaussianBackend"},
    "data": {"zoo": "none", "steps_per_epoch": 5},
    "trainer": {"max_steps": 5, "accelerator": "cpu", "logger": False, "enable_progress_bar": False},
}
QUICK = {"mode": "seeds", "runs": 4, "heldout_runs": 1, "checkpoints": 1, "epochs": 1}
RESULTS = ("zoo.json", "last.ckpt", "samples.json", "results.json")
SMALL = {"task.init_args.network": "mlp", "task.init_args.network_args": {"hidden": [4]}}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A comparison of a collected zoo, a fit and a baseline."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "fit.yaml").write_text(yaml.safe_dump(FIT))
    asked(folder)
    return folder


def asked(folder, *, optim=None, lr=0.1, n=3, seed=0, twin=False, temperature=1.0, **more):
    arguments = {**QUICK, **SMALL, **({} if optim is None else {"optim.lr": optim})}
    zoos = {"digits": ZooSource(collect="digits_mlp_seeds20", arguments=arguments)}
    zoos |= {"twin": ZooSource(align="digits")} if twin else {}
    fitted = {"fit": str(folder / "fit.yaml"), "arguments": {"model.init_args.lr": lr}}
    generators = {
        "gaussian": GeneratorSource(**fitted, sample={"temperature": temperature}),
        "soup": GeneratorSource(baseline="soup-3", zoos=["digits"]),
    }
    compare(zoos, generators, str(folder / "out"), n=n, seeds=[seed], baselines=["copy"], **more)


def times(folder: Path) -> dict[str, int]:
    """When each result was written."""
    out = folder / "out"
    found = [path for place in ("digits", "twin") for name in RESULTS for path in (out / place).rglob(name)]
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in found}


def changed(begun, tmp_path, **what) -> set[str]:
    """Which results a run of other settings wrote."""
    shutil.copytree(begun, tmp_path / "c", copy_function=shutil.copy2)
    folder = tmp_path / "c"
    before = times(folder)
    asked(folder, **what)
    return {name for name, when in times(folder).items() if before.get(name) != when}


DRAWN = {"digits/samples/gaussian/samples.json", "digits/results.json"}


def test_the_same_comparison_again_makes_nothing_again(begun, tmp_path):
    assert changed(begun, tmp_path) == set()


def test_what_a_killed_step_left_beside_its_result_goes(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "c", copy_function=shutil.copy2)
    results = [path for path in (tmp_path / "c" / "out" / "digits").rglob("*.*") if path.name in RESULTS]
    for path in results:
        (path.parent / LOCK).touch()
        (path.parent / f".{path.name}.x{TEMPORARY}").touch()
    before = times(tmp_path / "c")
    asked(tmp_path / "c")
    assert len(results) == 5
    assert not [*(tmp_path / "c" / "out").rglob(".*")]
    assert times(tmp_path / "c") == before


@pytest.mark.parametrize(
    ("what", "made"),
    [
        ({"lr": 0.2}, DRAWN | {"digits/fits/gaussian/last.ckpt"}),
        ({"temperature": 0.5}, DRAWN),
        ({"n": 2}, DRAWN | {"digits/samples/soup/samples.json"}),
    ],
    ids=["fit", "sample", "n"],
)
def test_a_change_makes_again_what_depends_on_it_and_nothing_else(begun, tmp_path, what, made):
    assert changed(begun, tmp_path, **what) == made


def test_a_zoo_of_other_settings_is_refused_by_name_and_made_again_when_asked(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "c", copy_function=shutil.copy2)
    folder = tmp_path / "c"
    asked(folder, twin=True)
    before = times(folder)
    with pytest.raises(ParamgenError, match=r"digits/zoo was made with optim\.lr=0\.004, now 0\.01: rerun with --redo"):
        asked(folder, optim=0.01)
    with pytest.raises(ParamgenError, match=r"digits/zoo was made with seed=0, now 1"):
        asked(folder, seed=1)
    assert times(folder) == before
    asked(folder, optim=0.01, twin=True, redo=True)
    assert all(when != before[name] for name, when in times(folder).items())
    assert Zoo(folder / "out" / "digits" / "zoo").meta["recipe"]["optim"]["lr"] == 0.01


def test_a_zoo_of_unknown_making_is_not_taken_for_the_comparison_s(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "c")
    (tmp_path / "c" / "out" / "digits" / "zoo" / "made.json").unlink()
    with pytest.raises(ParamgenError, match=r"digits/zoo has no made\.json with its settings"):
        asked(tmp_path / "c")


def test_a_given_zoo_that_changed_on_disk_is_noticed(tmp_path):
    def run():
        compare({"mine": ZooSource(path=str(tmp_path / "zoo"))}, {}, str(tmp_path / "out"), n=3, baselines=["copy"])
        return json.loads((tmp_path / "out" / "mine" / "results.json").read_text())["networks"]

    make_zoo(tmp_path / "zoo", runs=5, heldout=1, hidden=[4])
    assert run() == 4
    shutil.rmtree(tmp_path / "zoo")
    make_zoo(tmp_path / "zoo", runs=6, heldout=1, hidden=[4])
    assert run() == 5


def test_given_samples_that_changed_are_measured_again(tmp_path):
    zoo = make_zoo(tmp_path / "zoo", runs=5, heldout=1, hidden=[4])
    weights = zoo.matrix([0, 1, 2])

    def run(drawn):
        shutil.rmtree(tmp_path / "mine", ignore_errors=True)
        folder_of(zoo, drawn, tmp_path / "mine")
        source = {"mine": GeneratorSource(samples=str(tmp_path / "mine"))}
        compare({"z": ZooSource(path=str(zoo.path))}, source, str(tmp_path / "out"), n=3, baselines="none")
        rows = json.loads((tmp_path / "out" / "z" / "results.json").read_text())["rows"]
        return next(row for row in rows if row["name"] == "mine")["values"]["nn_ratio"]

    assert run(weights) == 0
    assert run(1.1 * weights) > 0


def test_what_was_used_is_recorded_and_one_seed_reaches_all(begun):
    out = begun
    drawn = json.loads((out / "out" / "digits" / "samples" / "gaussian" / "samples.json").read_text())
    assert drawn["command"].startswith("paramgen sample --ckpt_path ")
    assert drawn["fit_command"].startswith("paramgen fit --config ")
    assert "--seed_everything 0 --data.seed 0" in drawn["fit_command"]
    results = json.loads((out / "out" / "digits" / "results.json").read_text())
    assert results["command"].startswith("paramgen evaluate --zoo ")
    assert json.loads((out / "out" / "comparison.json").read_text())["command"].startswith("paramgen compare --zoos ")


def test_a_baseline_is_a_generator_without_a_fit(begun):
    folder = begun / "out" / "digits"
    zoo = Zoo(folder / "zoo")
    drawn = read_samples(folder / "samples" / "soup", zoo).weights
    mean = zoo.matrix(zoo.indices("train")).mean(0)
    assert not (folder / "fits" / "soup").exists()
    for row in drawn:  # a soup of all three is their mean
        assert (row - mean).abs().max() < 1e-5
    with pytest.raises(ParamgenError, match=r"Unknown baseline 'soop-3'. Did you mean 'soup-M'"):
        compare({"z": ZooSource(path=str(zoo.path))}, {"x": GeneratorSource(baseline="soop-3")})


def test_a_step_that_was_stopped_is_done_again_unless_its_result_is_whole(tmp_path):
    made = RecordedResult(tmp_path / "zoo.json", {"a": {"b": 1}})
    assert made.status().state == "nothing"
    made.begin()
    assert made.status().state == "nothing"
    made.path.write_text("{}")
    assert made.status() == ("same", "", False)
    assert RecordedResult(made.path, {"a": {"b": 1}}, whole=False).status().state == "nothing"
    made.finish()
    assert made.status() == ("same", "", True)
    made.path.write_text("{ }")
    assert made.status() == ("other", "was modified: the checksum of zoo.json differs", True)
    assert RecordedResult(made.path, {"a": {}}).status() == ("other", "was made with a=none given, now {}", True)
    assert RecordedResult(made.path, {"a": {"b": 1.0}}).status().reason == "was made with a.b=1, now 1.0"
    assert RecordedResult(made.path, {"a": {"b": True}}).status().reason == "was made with a.b=1, now true"


def test_a_folder_of_shards_is_a_result(tmp_path):
    made = RecordedResult(tmp_path / "last.ckpt", {}, whole=False)
    made.path.mkdir()
    (made.path / "0.distcp").write_text("weights")
    made.finish()
    assert made.status().state == "same"
    (made.path / "0.distcp").write_text("others")
    assert made.status().reason == "was modified: the checksum of last.ckpt differs"


def test_a_class_in_the_arguments_of_a_fit_stays_as_written(tmp_path):
    zoo = make_zoo(tmp_path / "zoo")
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(FIT))
    averaged = {"class_path": "paramgen.generators.optim.EMA", "init_args": {"decay": 0.5}}
    generator = {"fit": str(tmp_path / "fit.yaml"), "arguments": {"trainer.callbacks": [averaged]}}
    options = {"zoos": {"digits": {"path": str(zoo.path)}}, "generators": {"gaussian": generator}, "n": 2}
    (tmp_path / "compare.yaml").write_text(
        yaml.safe_dump({**options, "baselines": "none", "out": str(tmp_path / "out")})
    )
    assert main(["compare", "--config", str(tmp_path / "compare.yaml")]) == 0
    saved = torch.load(tmp_path / "out" / "digits" / "fits" / "gaussian" / "last.ckpt", weights_only=True)
    assert "EMA" in saved["callbacks"]
    assert "averaging_state" in saved
