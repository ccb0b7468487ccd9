"""Zoos of many tasks in `paramgen evaluate` and `paramgen compare`."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import torch
from scipy.stats import ttest_rel

from paramgen.cli.commands import compare
from paramgen.cli.commands.compare_steps import ZooSource, collecting
from paramgen.cli.main import main
from paramgen.collect import multi as collect_tasks
from paramgen.core.sample_writer import PerNetwork, write_samples
from paramgen.core.samples import SampleInfo, read_samples
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation.baselines import BASELINES
from paramgen.evaluation.compare import summary_table
from paramgen.evaluation.condition_baselines import ridge
from paramgen.evaluation.differences import with_differences
from paramgen.evaluation.evaluate import evaluate
from paramgen.evaluation.pool import conditions_of, seen_tasks
from paramgen.evaluation.results import TaskScores
from paramgen.evaluation.unseen import tasks_to_draw
from paramgen.report.figures import pictures_of
from paramgen.report.page import page
from paramgen.report.verdicts import over_seeds, verdict
from paramgen.tasks import RelabelFamily, RotatedFamily, family_of, load_family, score_family
from paramgen.tasks.conditions import CodeCondition
from paramgen.tasks.lora import LoraSettings


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    out = tmp_path_factory.mktemp("family") / "zoo"
    family = RelabelFamily(network_args={"hidden": [8]}, seen=24, unseen=3)
    collect_tasks.main(family, str(out), CodeCondition(dim=10), steps=120, score=False)
    return Zoo(out)


def drawn(zoo: Zoo, folder: Path, noise: float, seed: int = 0, **info: object) -> Path:
    """Two networks a task, ridge's with noise, for the unseen tasks and two seen ones."""
    asked = tasks_to_draw(zoo, 2, 2)
    weights = ridge(seen_tasks(zoo), asked.condition)
    weights = weights + noise * torch.randn(weights.shape, generator=torch.Generator().manual_seed(seed))
    states = [zoo.complete(zoo.spec.unflatten(row)) for row in weights]
    return write_samples(folder, states, SampleInfo(**info), PerNetwork(task=asked.names))  # type: ignore[arg-type]


def test_one_evaluation_scores_each_network_on_its_own_unseen_task(zoo, tmp_path, capsys):
    folder = drawn(zoo, tmp_path / "mine", 0.02, uses_task_data=True, sample_seconds=1.0)
    out = tmp_path / "out"
    assert main(["evaluate", "--zoo", str(zoo.path), "--samples", str(folder), "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())
    jsonschema.validate(
        results, json.loads(files("paramgen.core").joinpath("schemas", "results.schema.json").read_text())
    )
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == ["direct", "mine", "nearest", "average-2", "average-all", "ridge", "vote-5"]
    family, names = load_family(zoo.task_config), read_samples(folder, zoo).task
    assert names is not None
    states = [zoo.spec.unflatten(row) for row in read_samples(folder, zoo).weights]
    accuracy = score_family(zoo, states, names, "test").view(-1, 2).mean(1)  # 3 unseen tasks, then 2 seen ones
    mine = rows["mine"]["tasks"]
    assert list(mine["unseen"]) == family.unseen
    assert list(mine["unseen"].values()) == pytest.approx(accuracy[:3].tolist())
    assert list(mine["seen"].values()) == pytest.approx(accuracy[3:].tolist())
    assert rows["mine"]["values"]["mean"] == pytest.approx(float(accuracy[:3].mean()))
    assert len(rows["mine"]["points"]["score"]) == rows["mine"]["n"] == 6
    assert (rows["nearest"]["values"]["nn_ratio"], rows["vote-5"]["values"]["nn_ratio"]) == (0.0, None)
    assert rows["direct"]["values"]["mean"] == max(row["values"]["mean"] for row in results["rows"])
    assert {"kind": "seen_data", "detail": None} in rows["mine"]["flags"]
    html = (out / "report.html").read_text()
    assert "On 3 unseen tasks its networks have a mean accuracy of" in html
    assert "Task by task" in html
    assert "Novel and good" not in html.split("<script>")[0]
    assert "worst task" in capsys.readouterr().out


def test_flags_say_which_simple_ways_a_generator_does_not_beat(zoo, tmp_path):
    bad = read_samples(drawn(zoo, tmp_path / "bad", 3.0), zoo)
    results = evaluate(zoo, family_of(zoo), [bad])
    rows = {row.name: row for row in results.rows}
    verdicts = {}
    for other in rows.values():
        if other.kind == "baseline":
            a, b = ([row.tasks.unseen[task] for task in rows["direct"].tasks.unseen] for row in (rows["bad"], other))
            low, high = ttest_rel(a, b).confidence_interval(0.95)
            verdicts[other.name] = "better" if low > 0 else "worse" if high < 0 else "alike"
    flags = rows["bad"].flags
    assert {flag.detail: flag.kind for flag in flags if flag.detail} == {
        k: v for k, v in verdicts.items() if v != "better"
    }
    assert verdicts["ridge"] == "worse"
    known = seen_tasks(zoo)
    assert rows["ridge"].value("mean") == pytest.approx(
        float(
            score_family(
                zoo,
                [zoo.spec.unflatten(w) for w in ridge(known, conditions_of(zoo, list(rows["ridge"].tasks.unseen)))],  # type: ignore[union-attr]
                list(rows["ridge"].tasks.unseen),  # type: ignore[union-attr]
                "test",
            ).mean()
        )
    )


def test_networks_without_a_score_leave_gaps_in_the_report(zoo, tmp_path):
    mine = read_samples(drawn(zoo, tmp_path / "mine", 0.02), zoo)
    results = evaluate(zoo, family_of(zoo), [mine], baselines=["nearest", "ridge"])
    rows = list(results.rows)
    first, *others = rows[1].tasks.unseen.items()
    holes = {first[0]: float("nan"), **dict(others)}  # as a network of NaN leaves in PSNR
    tasks = TaskScores(holes, rows[1].tasks.seen)
    values = {**rows[1].values, "mean": tasks.mean, "worst_task": float("nan")}
    with_holes = replace(rows[1], tasks=tasks, values=values)
    judged = with_differences([rows[0], with_holes, *rows[2:]], {}, 1)
    plain = replace(results, rows=judged).to_dict()
    assert plain["rows"][1]["values"]["mean"] is None
    assert {pair["verdict"] for pair in plain["rows"][1]["against"]} == {"alike"}
    assert "mean accuracy of its 6 networks is not finite" in page(plain)
    dots = {mark.row: mark for mark in pictures_of(plain).pictures["tasks"].panels[0].marks}
    assert (len(dots["mine"].x), len(dots["direct"].x)) == (2, 3)


def test_adapters_stand_beside_the_pooled_one_and_none(tmp_path):
    family = RotatedFamily(
        seen=[-40.0, 0.0, 40.0], unseen=[20.0], network_args={"hidden": [16]}, lora=LoraSettings(["layers.*"], r=2)
    )
    how = {"start": "converged", "start_task": "pooled", "start_steps": 40, "score": False}
    collect_tasks.main(family, str(tmp_path / "zoo"), CodeCondition(dim=2), steps=20, **how)
    zoo = Zoo(tmp_path / "zoo")
    rows = {row.name: row for row in evaluate(zoo, family_of(zoo), baselines=["nearest"]).rows}
    assert list(rows) == ["direct", "pooled", "no adapter", "nearest"]
    assert all(len(rows[name].tasks.seen) == 3 for name in ("direct", "pooled", "no adapter"))
    upright = rows["no adapter"].tasks.seen
    assert upright["rotation+000"] == max(upright.values())  # what the network was pretrained on


@pytest.fixture(scope="module")
def compared(zoo, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    generators = {
        "close": {"samples": str(drawn(zoo, folder / "close", 0.01, uses_task_data=True))},
        "far": {"samples": str(drawn(zoo, folder / "far", 3.0))},
    }
    options = {"zoos": {"codes": {"path": str(zoo.path)}}, "generators": generators, "seeds": [0, 1]}
    (folder / "compare.yaml").write_text(json.dumps({**options, "title": "Codes", "out": str(folder / "out")}))
    assert main(["compare", "--config", str(folder / "compare.yaml")]) == 0
    return folder / "out"


def test_a_comparison_of_many_tasks_says_what_beats_what(compared):
    comparison, html = json.loads((compared / "comparison.json").read_text()), (compared / "report.html").read_text()
    jsonschema.validate(
        comparison, json.loads(files("paramgen.core").joinpath("schemas", "comparison.schema.json").read_text())
    )
    rows = {row["name"]: row for row in comparison["summary"]}
    assert {"mean", "worst_task", "seen", "gap"} <= rows["close"]["figures"].keys()
    assert "seen" not in rows["nearest"]["figures"]
    pairs = {(p["first"], p["second"]): p["mean"] for p in comparison["differences"]}
    assert {("close", "far"), ("close", "direct"), ("far", "vote-5")} <= pairs.keys()
    gap = rows["far"]["figures"]["mean"]["mean"] - rows["nearest"]["figures"]["mean"]["mean"]
    assert pairs["far", "nearest"] == pytest.approx(gap)
    close, far = over_seeds("codes", comparison)
    assert close.startswith("close* is better than ")
    assert "averaging all tasks" in close.split(";")[0]
    assert "copying the nearest task" in far.split("is worse than")[1]
    assert "paired t-tests over 2 seeds at 5 %, Holm&#39;s correction" in html
    assert "close*" in summary_table("codes", comparison).columns[0]._cells


def test_the_family_draws_its_tasks_by_the_seed_where_it_has_one():
    def parsed(config):
        parser, line = collecting(ZooSource(collect_tasks=config), 3, Path("out"))
        return parser.parse_args(line)

    codes, rotations = parsed("digits_relabel"), parsed("digits_rotations_lora")
    assert (codes.seed, codes.family.init_args.seed) == (3, 3)
    assert rotations.seed == 3
    assert "seed" not in rotations.family.init_args


def test_what_is_measured_on_request_is_passed_on(zoo, tmp_path):
    with pytest.raises(ParamgenError, match="aligned needs a zoo of one task"):
        compare.main({"codes": ZooSource(path=str(zoo.path))}, out=str(tmp_path), aligned=True, finetune=True)
    asked = json.loads((tmp_path / "codes" / "made.json").read_text())["settings"]
    assert (asked["aligned"], asked["finetune"]) == (True, True)


def test_mistakes_are_said_in_one_line(zoo, tmp_path, capsys):
    states = [zoo.full(0)]
    untold = write_samples(tmp_path / "untold", states, SampleInfo())
    few = write_samples(
        tmp_path / "few", states, SampleInfo(), PerNetwork(task=[load_family(zoo.task_config).unseen[0]])
    )
    for arguments, said in (
        (["--samples", str(untold)], "do not say what task"),
        (["--samples", str(few)], "no network for the unseen task"),
        (["--aligned", "true"], "has many tasks"),
        (["--baselines", "soup-4"], "Unknown baseline 'soup-4'"),
    ):
        assert main(["evaluate", "--zoo", str(zoo.path), "--out", str(tmp_path / "out"), *arguments]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ParamgenError, match="Unknown task '2'"):
        evaluate(
            zoo,
            family_of(zoo),
            [read_samples(write_samples(tmp_path / "odd", states, SampleInfo(), PerNetwork(task=["2"])), zoo)],
        )


def test_a_way_that_fails_is_a_row_with_the_reason_and_the_generator_is_still_judged(zoo, tmp_path, monkeypatch):
    def singular(*_: object) -> torch.Tensor:
        raise RuntimeError("the matrix is singular")

    failing = {**BASELINES, "ridge": replace(BASELINES["ridge"], draw=singular)}
    monkeypatch.setattr("paramgen.evaluation.baselines.BASELINES", failing)
    mine = read_samples(drawn(zoo, tmp_path / "mine", 0.02), zoo)
    results = evaluate(zoo, family_of(zoo), [mine]).to_dict()
    rows = {row["name"]: row for row in results["rows"]}
    assert rows["ridge"]["flags"] == [{"kind": "failed", "detail": "RuntimeError: the matrix is singular"}]
    assert (rows["ridge"]["n"], rows["ridge"]["values"]["mean"]) == (0, None)
    assert rows["vote-5"]["values"]["mean"] > 0
    said = " ".join(verdict(rows["mine"], results))
    assert "copying the nearest task" in said
    assert "ridge regression" not in said
