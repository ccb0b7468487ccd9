"""Networks between two tasks: what is mixed, what is averaged, what is refused."""

import json

import lightning
import pytest
import torch

from dotted import nest
from examples import example
from paramgen.backends.pdiff import PDiff
from paramgen.cli.main import main as paramgen
from paramgen.collect.multi import main as collect_tasks
from paramgen.core.io import read_json, write_json
from paramgen.core.score import ScoreSpec
from paramgen.core.zoo import Zoo
from paramgen.generators.data import ParameterDataModule
from paramgen.report.mixtures import mixtures
from paramgen.report.picture import Line
from paramgen.tasks import RelabelFamily, load_family, score_family
from paramgen.tasks.conditions import CodeCondition

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
SMALL = {
    "autoencoder.kind": "pca",
    "denoiser.kind": "mlp",
    "denoiser.width": 32,
    "denoiser.depth": 1,
    "diffusion.prediction_type": "sample",
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    out = tmp_path_factory.mktemp("interpolate") / "zoo"
    family = RelabelFamily(network_args={"hidden": [8]}, seen=30, unseen=2)
    collect_tasks(family, str(out), CodeCondition(dim=10), steps=100, networks=2, start="converged", score=False)
    return Zoo(out)


def checkpoint(zoo: Zoo, path, cond_dim: int | None = None) -> str:
    torch.manual_seed(0)
    data = ParameterDataModule(str(zoo.path), batch_size=16, steps_per_epoch=50)
    sizes = {"seq_len": data.seq_len, "token_dim": data.token_dim, "num_networks": data.num_networks}
    width = data.cond_dim if cond_dim is None else cond_dim
    model = PDiff(
        **sizes, cond_dim=width, **nest({**SMALL, "diffusion.scheduler": "DDIM", "diffusion.num_inference_steps": 5})
    )
    trainer = lightning.Trainer(max_steps=150, max_epochs=-1, accelerator="cpu", limit_val_batches=0, **QUIET)
    trainer.fit(model, datamodule=data)
    path.parent.mkdir(exist_ok=True)
    trainer.save_checkpoint(path)
    return str(path)


@pytest.fixture(scope="module")
def ckpt(zoo, tmp_path_factory) -> str:
    return checkpoint(zoo, tmp_path_factory.mktemp("fits", numbered=False) / "fit" / "last.ckpt")


def interpolate(zoo, tasks, out, *more) -> int:
    return paramgen(["interpolate", "--zoo", str(zoo.path), "--tasks", json.dumps(tasks), "--out", str(out), *more])


def test_averages_go_from_one_tasks_networks_to_the_others_and_generators_stand_beside_them(
    zoo, ckpt, tmp_path, capsys
):
    first, second = load_family(zoo.task_config).seen[:2]
    more = ["--ckpt_path", json.dumps([ckpt]), "--points", "3", "--per_point", "2"]
    assert interpolate(zoo, [first, second], tmp_path, *more) == 0
    values = json.loads((tmp_path / "interpolation.json").read_text())
    assert values["weights"] == [0, 0.5, 1]
    (measured,) = values["zoos"]
    rows = {row["name"]: row for row in measured["rows"]}
    assert rows.keys() == {"averaged weights", "start", "fit"}
    own = {n: zoo.matrix([i for i, e in enumerate(zoo.entries) if e.task == n]) for n in (first, second)}
    for at, task in ((0, first), (1, second)):
        for w, weights in ((0, own[first]), (1, (own[first] + own[second]) / 2), (2, own[second])):
            expected = score_family(zoo, [zoo.spec.unflatten(row) for row in weights], [task] * 2, "test").mean()
            assert rows["averaged weights"]["mean"][at][w] == pytest.approx(float(expected), abs=1e-6)
    assert len(set(rows["start"]["mean"][0])) == 1
    assert (tmp_path / "interpolation.png").stat().st_size > 10_000
    assert "averaged weights" in capsys.readouterr().out


def test_generated_networks_follow_the_condition_from_one_task_to_the_other(zoo, ckpt, tmp_path):
    family = load_family(zoo.task_config)
    first = family.seen[0]
    second = max(family.seen, key=lambda code: sum(a != b for a, b in zip(code, first, strict=True)))
    more = ["--ckpt_path", json.dumps([ckpt]), "--points", "3", "--per_point", "3"]
    assert interpolate(zoo, [first, second], tmp_path, *more) == 0
    (measured,) = json.loads((tmp_path / "interpolation.json").read_text())["zoos"]
    on_first, on_second = torch.tensor(next(row["mean"] for row in measured["rows"] if row["name"] == "fit"))
    assert on_first[0] > on_first[-1]
    assert on_second[-1] > on_second[0]


def test_a_comparisons_zoos_are_taken_together_with_the_spread_over_seeds(zoo, ckpt, tmp_path):
    for seed in (0, 1):
        here = tmp_path / f"seed{seed}" / "H"
        (here / "fits" / "mine").mkdir(parents=True)
        (here / "zoo").symlink_to(zoo.path)
        (here / "fits" / "mine" / "last.ckpt").symlink_to(ckpt)
    reports = [{"zoo": "H", "seed": seed, "file": f"seed{seed}/H/results.json"} for seed in (0, 1)]
    write_json(tmp_path / "comparison.json", {**example("comparison"), "reports": reports})
    tasks, few = load_family(zoo.task_config).seen[:2], ["--points", "3", "--per_point", "2"]
    arguments = ["--tasks", json.dumps(tasks), "--out", str(tmp_path / "out"), *few]
    assert paramgen(["interpolate", "--comparison", str(tmp_path), *arguments]) == 0
    assert interpolate(zoo, tasks, tmp_path / "alone", "--ckpt_path", json.dumps([ckpt]), *few) == 0
    together, alone = (read_json(tmp_path / name / "interpolation.json")["zoos"][0] for name in ("out", "alone"))
    assert (together["zoo"], together["seeds"]) == ("H", 2)
    for row, same in zip(together["rows"], alone["rows"], strict=True):
        assert row["mean"] == same["mean"]  # the same zoo twice
        assert torch.tensor(row["std"]).abs().max() == 0


def test_mistakes_are_said_in_one_line(zoo, tmp_path, capsys):
    first, second = load_family(zoo.task_config).seen[:2]
    unconditional = checkpoint(zoo, tmp_path / "none.ckpt", cond_dim=0)
    for tasks, more, said in (
        ([first, "01x"], [], "Unknown task '01x'"),
        ([first, first], [], "twice"),
        ([first], [], "tasks: got 1, expected two"),
        ([first, second], ["--points", "4"], "points is 4"),
        ([first, second], ["--per_point", "0"], "per_point is 0"),
        ([first, second], ["--comparison", str(tmp_path)], "give a zoo with its ckpt_path, or a comparison"),
        ([first, second], ["--ckpt_path", json.dumps([unconditional])], "takes no condition"),
    ):
        assert interpolate(zoo, tasks, tmp_path / "out", *more) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_task_that_no_network_was_kept_of_is_named(tmp_path, capsys):
    family = RelabelFamily(network_args={"hidden": [4]}, seen=3, unseen=1)
    collect_tasks(family, str(tmp_path / "zoo"), CodeCondition(dim=10), steps=2, heldout=False, score=False)
    assert interpolate(Zoo(tmp_path / "zoo"), [family.seen[0], family.unseen[0]], tmp_path / "out") == 2
    assert family.unseen[0] in capsys.readouterr().err


def test_scores_are_the_familys_own_in_its_unit_and_direction(zoo, tmp_path, capsys, monkeypatch):
    tasks, few = load_family(zoo.task_config).seen[:2], ["--points", "3", "--per_point", "2"]
    assert interpolate(zoo, tasks, tmp_path, *few) == 0
    assert "test accuracy, %" in capsys.readouterr().out
    monkeypatch.setattr(RelabelFamily, "score", ScoreSpec("wrong share", "plain", higher_is_better=False))
    monkeypatch.setattr(RelabelFamily, "value", lambda self, items: 1 - items.double().mean(1))
    assert interpolate(zoo, tasks, tmp_path, *few) == 0
    said = capsys.readouterr().out
    assert "test wrong share (lower is better)" in said
    assert "accuracy" not in said
    values = json.loads((tmp_path / "interpolation.json").read_text())
    (measured,) = values["zoos"]
    (row,) = [row for row in measured["rows"] if row["name"] == "averaged weights"]
    middle = [scores[1] for scores in row["mean"]]
    assert f"{max(middle):.2f}" in next(line for line in said.splitlines() if "averaged" in line)  # the worse of two
    (panel,) = mixtures(values).panels
    assert panel.y.label == "test wrong share (lower is better)"
    lines = [mark for mark in panel.marks if isinstance(mark, Line) and mark.row == "averaged weights"]
    assert [line.y for line in lines] == [pytest.approx(scores) for scores in row["mean"]]
    assert [line.dashed for line in lines] == [False, True]
