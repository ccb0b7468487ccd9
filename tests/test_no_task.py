"""A zoo of imported weights alone: no task, nothing built or run, no scores."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import network_kinds
from gaussian_backend import GaussianBackend
from paramgen.cli.main import main
from paramgen.core.samples import read_samples
from paramgen.core.schema import load_schema
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation.notes import of_other_zoos
from paramgen.evaluation.weight_baselines import FROM_WEIGHTS
from paramgen.tasks import task_of


def states(n, kind="ConvNorm"):
    for seed in range(n):
        torch.manual_seed(seed)
        yield getattr(network_kinds, kind)().state_dict()


def write(made):
    Path("theirs").mkdir(exist_ok=True)
    for i, state in enumerate(made):
        torch.save(state, f"theirs/n{i}.pt")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


IMPORT = ["zoo", "import", "--source", "theirs", "--out", "zoo"]


def imported(*more):
    assert main([*IMPORT, *more]) == 0
    return Zoo("zoo")


def refused(capsys, *more):
    assert main([*IMPORT, *more]) == 2
    assert not Path("zoo").exists()
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("kind", ["ConvNorm", "Double", "BFloat16", "Complex", "Scalar", "Tied", "Extra", "Empty"])
def test_weights_of_any_kind_come_back_as_they_were(kind, capsys):
    made = [*states(3, kind)]
    write(made)
    zoo = imported()
    assert zoo.task_config is None
    assert json.loads(Path("zoo/zoo.json").read_text())["task"] is None
    for i, state in enumerate(made):
        kept = zoo.full(i)
        for name, tensor in state.items():
            if isinstance(tensor, torch.Tensor) and not name.endswith("num_batches_tracked"):
                assert torch.equal(kept[name], tensor), name
    assert all(entry.scores == {} for entry in zoo.entries)
    assert "without a task" in capsys.readouterr().out


def test_info_and_verify_need_no_task(capsys):
    write(states(3))
    imported()
    assert main(["zoo", "verify", "--zoo", "zoo"]) == 0
    assert main(["zoo", "info", "--zoo", "zoo"]) == 0
    said = capsys.readouterr().out
    assert "task      none" in said
    assert "accuracy" not in said


def changed(name, make):
    made = [*states(3)]
    made[1] = {**made[1], name: make(made[1].get(name))}
    return made


def without(name):
    made = [*states(3)]
    del made[1][name]
    return made


def names():
    (state,) = states(1)
    return [name for name in state if state[name].is_floating_point()]


def test_every_further_file_must_agree_with_the_first(capsys):
    first = names()[0]
    write(changed(first, lambda t: t[..., :1]))
    assert "n1.pt: " in (line := refused(capsys))
    assert f"{first!r} has shape" in line
    assert line.endswith("as in n0.pt")
    write(without(first))
    assert f"n1.pt: no tensor {first!r} of n0.pt (1 missing)" in refused(capsys)
    write(changed("more", lambda _: torch.zeros(2)))
    assert "n1.pt: 'more' is not in n0.pt (1 unknown)" in refused(capsys)
    write(changed(first, lambda t: t.double() + 1e-12))
    assert f"n1.pt: {first!r} is float64" in refused(capsys)
    write(changed(first, lambda t: t.int()))
    assert f"n1.pt: {first!r} is int32, expected float32, as in n0.pt" in refused(capsys)


def test_a_file_without_tensors_is_refused(capsys):
    write([{"epoch": 3}, {"epoch": 4}])
    assert "n0.pt holds no tensors" in refused(capsys)
    write(states(2))
    assert "holds no tensors under the prefix 'model.'" in refused(capsys, "--prefix", "model.")


def test_globs_choose_what_is_generated_and_subsets_need_a_task(capsys):
    made = [*states(3, "Plain")]
    for state in made:
        state["a.weight"], state["a.bias"] = made[0]["a.weight"], made[0]["a.bias"]
    write(made)
    assert "subset 'classifier' needs a task" in refused(capsys, "--parameters", "[classifier]")
    zoo = imported("--parameters", "[b.*]")
    assert zoo.spec.names == ["b.weight", "b.bias"]
    assert torch.equal(zoo.full(2)["a.weight"], made[0]["a.weight"])


def test_the_base_file_completes_the_architecture():
    made = [*states(3, "Plain")]
    torch.save(made[0], "base.pt")
    write({name: t for name, t in state.items() if name.startswith("b.")} for state in made)
    zoo = imported("--parameters", "[b.*]", "--base", "base.pt")
    assert torch.equal(zoo.full(2)["a.weight"], made[0]["a.weight"])
    assert torch.equal(zoo.full(2)["b.weight"], made[2]["b.weight"])


def test_a_generator_is_fitted_and_sampled_and_distances_are_watched(capsys, recwarn):
    write(states(6))
    zoo = imported()
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--trainer.max_steps", "4"]
    line = ["fit", "--model", GaussianBackend.__name__, "--data.zoo", "zoo", "--quality.sample_every", "2", *quiet]
    assert main(line) == 0
    assert (
        capsys.readouterr().err.count("samples are not scored; only their distances are logged: the zoo has no task")
        == 1
    )
    noise = ("LeafSpec", "Total length")  # of Lightning's own code, and of a zoo without networks for validation
    assert not [w for w in recwarn if any(word in str(w.message) for word in noise)]
    (checkpoint,) = Path().rglob("last.ckpt")
    assert (
        main(
            [
                "validate",
                "--model",
                GaussianBackend.__name__,
                "--data.zoo",
                "zoo",
                "--ckpt_path",
                str(checkpoint),
                *quiet,
            ]
        )
        == 2
    )
    assert "zoo 'zoo' has no val networks to compute losses on" in capsys.readouterr().err
    history = torch.load(checkpoint, weights_only=True)["callbacks"]
    watched = next(state["history"] for name, state in history.items() if "SampleQuality" in name)
    assert {"sample/nn_ratio", "sample/run_ratio", "sample/dispersion"} & watched.keys()
    assert not any("score" in name for name in watched)
    assert main(["sample", "--ckpt_path", str(checkpoint), "--n", "2", "--out", "samples"]) == 0
    assert len([*Path("samples").glob("*.safetensors")]) == 2
    assert json.loads(Path("samples/samples.json").read_text())["zoo_sha256"] == zoo.sha256


def test_what_needs_a_task_says_so_in_a_line(capsys):
    write(states(3))
    zoo = imported()
    capsys.readouterr()
    assert main(["zoo", "align", "--zoo", "zoo", "--out", "aligned"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert (
        "zoo 'zoo' has no task, so its networks cannot be built, run or scored; import them again with --task" in line
    )
    with pytest.raises(ParamgenError, match="has no task"):
        task_of(zoo)


def test_an_unknown_task_is_still_named(capsys):
    write(states(2))
    assert "ClassificatonTask" in refused(capsys, "--task", "ClassificatonTask")


def test_an_import_that_was_stopped_goes_on_without_a_task():
    write(states(4))
    first = imported()
    lines = [json.dumps({k: v for k, v in first.meta.items() if k in ("format", "task", "recipe", "spec")})]
    lines += [json.dumps(entry) for entry in first.meta["entries"][:2]]
    Path("zoo/zoo.json").unlink()
    Path("zoo/zoo.partial.jsonl").write_text("\n".join(lines) + "\n")
    assert len(imported()) == 4


def test_no_network_is_built_or_run(monkeypatch):
    write(states(2))
    monkeypatch.setattr(nn.Module, "__call__", lambda *_: pytest.fail("a network ran"))
    imported()


def test_distances_are_evaluated_without_scores(capsys):
    write(states(8))
    imported("--one_run", "false", "--heldout_networks", "2")
    Path("drawn").mkdir()
    for i, state in enumerate([*states(2)]):  # copies of training networks
        torch.save(state, f"drawn/n{i}.pt")
        save_file({name: t.contiguous() for name, t in state.items()}, f"drawn/n{i}.safetensors")
    capsys.readouterr()
    assert (
        main(["evaluate", "--zoo", "zoo", "--samples", "drawn", "--out", "report", "--n", "4", "--aligned", "true"])
        == 0
    )
    said = capsys.readouterr().out
    assert "accuracy" not in said
    assert "copies" in said
    results = json.loads(Path("report/results.json").read_text())
    assert results["task"] is results["score"] is results["good_from"] is None
    rows = {row["name"]: row for row in results["rows"]}
    assert rows.keys() == {"zoo", "held-out runs", "drawn", *FROM_WEIGHTS}
    assert rows["drawn"]["values"]["nn_ratio"] == 0
    assert rows["kde"]["values"]["dispersion"] > 0
    assert 0.5 < rows["held-out runs"]["values"]["run_ratio"] < 2
    for row in rows.values():
        assert row["n"] > 0, row["flags"]
        assert row["points"]["score"] == []
        assert not [
            key for key in ("mean", "best", "std", "selected", "iou_wrong_max") if row["values"][key] is not None
        ]
    assert any("needs a task with data" in note for note in results["notes"])
    page = Path("report/report.html").read_text()
    assert "accuracy" not in page.partition("<script")[0].partition("<body")[2]
    assert sorted(path.name for path in Path("report").glob("*.png")) == ["map.png", "strips.png"]


def test_samples_of_another_zoo_are_named_in_the_terminal_and_in_the_report(capsys):
    made = [*states(6)]
    write(made[:4])
    imported()
    merge = ["merge", "--method", "soup", "--networks", "2", "--n", "2", "--zoo", "zoo"]
    assert main([*merge, "--out", "merged"]) == 0
    shutil.copytree("zoo", "elsewhere/copy")
    write(made[2:])  # the same names, other networks
    for other in ("another", "elsewhere/zoo"):
        assert main([*IMPORT[:-1], other]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--zoo", "another", "--samples", "merged", "--n", "2", "--baselines", "none"]) == 0
    said = "The generator of 'merged' learnt from zoo 'zoo', not from this one (another)"
    assert said in " ".join(capsys.readouterr().out.split())
    assert json.loads(Path("runs/evaluate/results.json").read_text())["notes"][0].startswith(said)
    for zoo, named in {"zoo": [], "elsewhere/copy": [], "elsewhere/zoo": ["another zoo of the name 'zoo'"]}.items():
        notes = of_other_zoos([read_samples("merged", Zoo(zoo))], Zoo(zoo))
        assert [note.partition(", not")[0] for note in notes] == [
            f"The generator of 'merged' learnt from {n}" for n in named
        ]


def test_a_baseline_that_needs_a_task_says_so_in_its_row(capsys):
    write(states(4))
    imported()
    assert (
        main(["evaluate", "--zoo", "zoo", "--out", "report", "--n", "2", "--baselines", "[random-init, soup-2]"]) == 0
    )
    assert "random-init needs a task, and zoo 'zoo' has none" in capsys.readouterr().out
    assert main(["evaluate", "--zoo", "zoo", "--out", "report", "--n", "2", "--finetune", "true"]) == 2
    assert "finetune needs a task with data" in capsys.readouterr().err


def test_generators_are_compared_by_distances_alone(capsys):
    write(states(8))
    imported("--one_run", "false", "--heldout_networks", "2")
    Path("drawn").mkdir()
    for i, state in enumerate(states(3)):  # copies of training networks
        save_file({name: t.contiguous() for name, t in state.items()}, f"drawn/n{i}.safetensors")
    generators = {"drawn": {"samples": "drawn"}, "soup": {"baseline": "soup-3"}}
    options = {"zoos": {"theirs": {"path": "zoo"}}, "generators": generators, "n": 3, "seeds": [0, 1], "out": "out"}
    Path("compare.yaml").write_text(json.dumps(options))
    capsys.readouterr()
    assert main(["compare", "--config", "compare.yaml"]) == 0
    assert "accuracy" not in capsys.readouterr().out
    comparison = json.loads(Path("out/comparison.json").read_text())
    jsonschema.validate(comparison, load_schema("comparison"))
    assert comparison["scores"] == {"theirs": None}
    assert comparison["differences"] == []
    rows = {row["name"]: row["figures"] for row in comparison["summary"]}
    assert rows["drawn"]["run_ratio"]["mean"] == 0 < rows["soup"]["run_ratio"]["mean"]
    assert not [name for name, figures in rows.items() if "mean" in figures]
    page = Path("out/report.html").read_text()
    assert "accuracy" not in page.partition("<script")[0].partition("<body")[2]
