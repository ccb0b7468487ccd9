"""One entry of the registry is a metric everywhere; scores of any kind are measured, printed and drawn in their own unit and direction."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch

from measured import folder_of, make_zoo
from paramgen.cli.main import main
from paramgen.core.params import ParamSpec
from paramgen.core.samples import SampleInfo, Samples
from paramgen.core.schema import load_schema
from paramgen.core.score import ACCURACY
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.evaluation.compare import Report, differences, score_of, show, summarise, summary_table
from paramgen.evaluation.evaluate import evaluate
from paramgen.evaluation.intervals import Bootstrap, against
from paramgen.evaluation.metric import PERCENT, Metric, needs
from paramgen.evaluation.metrics import score_summary
from paramgen.evaluation.registry import METRICS, metric
from paramgen.evaluation.schema import comparison_schema, results_schema, with_docs_table
from paramgen.report.evaluation_report import table
from paramgen.report.figures import pictures_of
from paramgen.report.page import comparison_page, page
from paramgen.report.png import draw_picture, save_plots
from paramgen.tasks import FieldTask, Task, TextTask, task_of

ROOT = Path(__file__).parents[1]


def trained_zoo(task: Task, path: Path, runs: int = 5, heldout: int = 2, steps: int = 40, lr: float = 1e-2) -> Zoo:
    """Networks of a task, each trained for a moment from a seed of its own."""
    x, y = next(iter(task.data("train").batches(512)))
    states = []
    for seed in range(runs):
        torch.manual_seed(seed)
        model = task.build()
        optimizer = torch.optim.Adam(model.parameters(), lr)
        for _ in range(steps):
            optimizer.zero_grad()
            task.loss(model(x)[None], y[None]).mean().backward()
            optimizer.step()
        states.append({name: t.clone() for name, t in model.state_dict().items()})
    writer = ZooWriter(path, ParamSpec.of(states[0]), {}, task.config(), {"made": "by a test"})
    for run, state in enumerate(states):
        writer.add(state, run=run, step=0, seed=run, split="train" if run < runs - heldout else "heldout")
    return writer.close(seconds=1.0)


@pytest.fixture(scope="module", params=["field", "text"])
def other(request, tmp_path_factory):
    """A task that is no classifier, and the evaluation of good and of spoiled networks of its zoo."""
    task: Task = FieldTask(hidden=8, resolution=8) if request.param == "field" else TextTask(2, 2, 4, 600, 200)
    zoo = trained_zoo(task, tmp_path_factory.mktemp(request.param) / "zoo")
    W = zoo.matrix(zoo.indices("train"))
    spoiled = W + 0.5 * torch.randn(W.shape, generator=torch.Generator().manual_seed(0))
    samples = [Samples(name, w, SampleInfo(), total=3) for name, w in (("same", W * 1.001), ("spoiled", spoiled))]
    return task, evaluate(zoo, task, samples, ["copy", "noise-2", "kde", "random-init"], n=3).to_dict()


def rows_of(results: dict) -> dict:
    return {row["name"]: row for row in results["rows"]}


def test_scores_of_any_kind_are_summed_up_in_their_direction(other):
    task, results = other
    sign, rows = task.score.sign, rows_of(results)
    for row in results["rows"]:
        points = row["points"]["score"]
        values = row["values"]
        assert values["mean"] == pytest.approx(sum(points) / len(points), rel=1e-5)
        assert sign * values["best"] == pytest.approx(max(sign * v for v in points), rel=1e-5)
        assert sign * values["worst"] == pytest.approx(min(sign * v for v in points), rel=1e-5)
    assert results["good_from"] == pytest.approx(rows["zoo"]["values"]["mean"] - sign * task.score.margin, rel=1e-5)
    pairs = {pair["name"]: pair["verdict"] for pair in rows["spoiled"]["against"]}
    assert pairs["copy"] == "worse"
    assert "copies" in {flag["kind"] for flag in rows["same"]["flags"]}
    assert "copies" not in {flag["kind"] for flag in rows["random-init"]["flags"]}


def test_metrics_without_what_they_need_have_no_value_and_no_column(other):
    task, results = other
    predicts = isinstance(task, TextTask)
    for key, there in (("same_predictions", predicts), ("disagreement_nearest", predicts), ("iou_wrong_max", predicts)):
        assert all((row["values"][key] is not None) == there for row in results["rows"]), key
        assert (f'popovertarget="def-{key}"' in page(results)) == there
    assert all(row["values"]["ensemble"] is None for row in results["rows"])  # a vote has an accuracy, and no PSNR
    assert metric("ensemble").needs == needs("accuracy")


def test_a_score_is_printed_and_drawn_with_its_name_unit_and_direction(other, tmp_path):
    task, results = other
    jsonschema.validate(results, load_schema("results"))
    html = page(results)
    assert f"mean {task.score.label}" in html
    assert ("lower is better" in html) == (not task.score.higher_is_better)
    assert "Accurac" not in html.replace("Accuracy of a majority vote", "")
    assert {"strips.png", "plane.png", "map.png"} <= {file.name for file in save_plots(results, tmp_path)}
    pictures = pictures_of(results).pictures
    (axes,) = draw_picture(pictures["plane"]).axes
    assert axes.get_ylabel() == f"mean test {task.score.label}"
    strips = draw_picture(pictures["strips"]).axes[0]
    means = {row["name"]: row["values"]["mean"] for row in results["rows"]}
    shown = sorted((label.get_position()[0], label.get_text()) for label in strips.get_xticklabels())
    ticks = [float(text) for _, text in shown]
    assert ticks == sorted(ticks, reverse=not task.score.higher_is_better)  # better to the right
    assert len(ticks) >= 2
    cells = {c.header: list(c.cells) for c in table(results).columns}
    assert cells["mean"][0] == task.score.text(means["zoo"])


def test_a_comparison_knows_the_direction_of_a_score(other, tmp_path):
    task, results = other
    reports = []
    for seed, shift in enumerate((0.0, 0.01, 0.02)):
        changed = json.loads(json.dumps({**results, "command": "paramgen evaluate", "weights": []}))
        for i, row in enumerate(changed["rows"]):
            row["values"]["mean"] += shift * (1 + i * (seed + 1) % 5)
        file = tmp_path / f"{seed}.json"
        file.write_text(json.dumps(changed))
        reports.append(Report("z", seed, file))
    pairs = {(p["first"], p["second"]): p["verdict"] for p in differences(reports)}
    assert pairs["spoiled", "copy"] == "worse"
    comparison = {
        "title": "t",
        "about": "",
        "seeds": [0, 1, 2],
        "paper": {},
        "reports": [{"zoo": "z", "seed": r.seed, "file": r.path.name} for r in reports],
        "scores": {"z": results["score"]},
        "summary": summarise(reports),
        "differences": differences(reports),
        "machine": "",
        "command": "",
    }
    jsonschema.validate(comparison, comparison_schema())
    assert score_of("z", comparison) == task.score
    assert f"the score is {task.score.name}" in comparison_page(comparison, [r.results for r in reports])
    zoo = next(row for row in comparison["summary"] if row["name"] == "zoo")
    assert show(zoo["figures"]["mean"], metric("mean"), task.score).startswith(
        task.score.text(zoo["figures"]["mean"]["mean"])
    )


def test_the_bootstrap_of_a_function_of_means_is_that_of_any_function():
    generator = torch.Generator().manual_seed(0)
    items = torch.rand(6, 50, generator=generator)
    perplexity = lambda x: x.double().mean(1).exp()  # noqa: E731
    fast, slow = Bootstrap(50, perplexity), Bootstrap(50, lambda x: x.double().sort(1).values.mean(1).exp())
    # the slow way is taken where the mean over items does not give the score
    middle = Bootstrap(50, lambda x: x.double().quantile(0.5, dim=1))
    for bootstrap in (fast, slow, middle):
        found = bootstrap.resample("row", bootstrap.value(items), items, torch.ones(6))
        assert found.score[0] == pytest.approx(float(bootstrap.value(items).mean()))
        assert 0 < found.score[1:].std() < 0.2
    drawn = fast.items[0][0].long()
    by_hand = perplexity(items[:, torch.arange(50).repeat_interleave(drawn)])
    torch.testing.assert_close(fast._scores(perplexity(items), items, fast.items[0][:1])[0], by_hand, rtol=1e-5, atol=0)


def test_a_lower_score_that_is_better_is_better():
    bootstrap = Bootstrap(0)
    low, high = (bootstrap.resample("row", torch.full((9,), v), None, torch.ones(9)) for v in (1.0, 2.0))
    assert against("other", low, high, sign=-1).verdict == "better"
    assert against("other", low, high, sign=1).verdict == "worse"
    summary = score_summary(torch.tensor([3.0, 1.0, float("nan")]), torch.tensor([1.0, 2.0, float("nan")]), sign=-1)
    assert (summary.best, summary.worst, summary.selected) == (1.0, float("inf"), 3.0)


@pytest.fixture
def nearest_share():
    """A metric of one's own."""
    made = Metric(
        "own",
        "Own figure",
        "Share of networks that are finite.",
        lambda c: c.finite.double().mean().item(),
        PERCENT,
        needs("score"),
        better="higher",
        summary="shown",
        terminal="own",
    )
    METRICS.append(made)
    yield made
    METRICS.remove(made)


def test_one_entry_of_the_registry_is_a_metric_in_row_column_summary_schema_and_docs(nearest_share, tmp_path):
    zoo = make_zoo(tmp_path / "zoo", runs=4, heldout=1, hidden=[4])
    assert folder_of(zoo, zoo.matrix([0]), tmp_path / "drawn").exists()

    results = {**evaluate(zoo, task_of(zoo), [], ["copy"], n=2).to_dict(), "command": None, "weights": []}
    assert [row["values"]["own"] for row in results["rows"]] == [1.0, 1.0, 1.0]
    html = page(results)
    assert 'popovertarget="def-own"' in html
    assert "Share of networks that are finite." in html
    assert "own" in [column.header for column in table(results).columns]
    schema = results_schema()
    jsonschema.validate(results, schema)
    assert schema["$defs"]["row"]["properties"]["values"]["properties"]["own"] == {
        "type": ["number", "null"],
        "minimum": 0,
        "maximum": 1,
    }
    assert "own" in comparison_schema()["properties"]["summary"]["items"]["properties"]["figures"]["properties"]
    assert "| `own` | Own figure | Share of networks that are finite. | score | higher |" in with_docs_table(docs())


def test_a_summary_shows_every_metric_that_asks_for_it(nearest_share, tmp_path):
    zoo = make_zoo(tmp_path / "zoo", runs=4, heldout=1, hidden=[4])

    report = Report("z", 0, tmp_path / "none.json")
    report.__dict__["results"] = evaluate(zoo, task_of(zoo), [], ["copy"], n=2).to_dict()
    (first, *_) = summarise([report])
    assert first["figures"]["own"] == {"mean": 1.0, "std": None, "mark": ""}
    comparison = {"summary": [first], "seeds": [0], "paper": {}, "scores": {"z": ACCURACY.to_dict()}}
    assert "own" in [column.header for column in summary_table("z", comparison).columns]


def docs() -> str:
    return (ROOT / "docs" / "evaluation.md").read_text()


@pytest.mark.parametrize(("name", "schema"), [("results", results_schema()), ("comparison", comparison_schema())])
def test_the_shipped_schema_is_the_generated_one(name, schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    assert load_schema(name) == schema, "run python -m paramgen.evaluation.schema"


def test_the_table_of_metrics_in_the_docs_is_the_generated_one():
    assert with_docs_table(docs()) == docs(), "run python -m paramgen.evaluation.schema"


def test_every_metric_has_a_key_of_its_own_and_a_definition():
    assert len({m.key for m in METRICS}) == len(METRICS)
    assert all(m.title and m.definition.endswith(".") for m in METRICS)
    assert {m.behind for m in METRICS} - {None} <= {m.key for m in METRICS}


def test_a_zoo_without_a_task_has_distances_alone(tmp_path):
    zoo = make_zoo(tmp_path / "zoo", runs=5, heldout=2, hidden=[4])
    index = json.loads((zoo.path / "zoo.json").read_text())
    (zoo.path / "zoo.json").write_text(json.dumps({**index, "task": None}))
    drawn = folder_of(zoo, zoo.matrix([0, 1]) * 1.001, tmp_path / "drawn")
    out = tmp_path / "out"
    asked = ["evaluate", "--zoo", str(zoo.path), "--samples", str(drawn), "--n", "2", "--out", str(out)]
    assert main(asked) == 0
    results = json.loads((out / "results.json").read_text())
    jsonschema.validate(results, load_schema("results"))
    rows = rows_of(results)
    assert results["score"] is results["task"] is results["good_from"] is None
    assert not {"random-init", "finetuned-copy"} & rows.keys()  # they need a network
    assert [flag["kind"] for flag in rows["drawn"]["flags"]] == ["copies"]
    for row in rows.values():
        assert row["values"]["run_ratio"] is not None
        assert row["values"]["dispersion"] is not None
        assert all(row["values"][m.key] is None for m in METRICS if m.needs & needs("score", "predictions", "answers"))
    html = (out / "report.html").read_text()
    assert "The score is" not in html
    assert 'popovertarget="def-mean"' not in html
    assert sorted(file.name for file in out.iterdir()) == ["map.png", "report.html", "results.json", "strips.png"]
    assert main([*asked, "--finetune", "true"]) == 2
