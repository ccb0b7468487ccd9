import json
import shutil
from importlib.resources import files
from io import StringIO
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from rich.console import Console
from scipy.stats import ttest_1samp, ttest_rel

from examples import example
from measured import folder_of, make_zoo
from paramgen.cli.main import main
from paramgen.core.score import ACCURACY
from paramgen.evaluation.compare import Report, differences, show, summarise, summary_table
from paramgen.evaluation.flags import Flag
from paramgen.evaluation.registry import blank_values, metric
from paramgen.report.page import comparison_page


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of two folders of samples on a zoo and another, over two seeds of the baselines."""
    folder = tmp_path_factory.mktemp("compare")
    first = make_zoo(folder / "one", runs=6, heldout=2, hidden=[8])
    shutil.copytree(first.path, folder / "two")
    close, far = (first.matrix([0, 1, 2, 3]) * scale for scale in (1.001, 1.2))
    generators = {
        "close": {"samples": str(folder_of(first, close, folder / "close"))},
        "far": {"samples": str(folder_of(first, far, folder / "far")), "zoos": ["one"]},
    }
    zoos = {name: {"path": str(folder / name)} for name in ("one", "two")}
    options = {
        "zoos": zoos,
        "generators": generators,
        "baselines": ["gaussian", "noise-1"],
        "seeds": [0, 1],
        "n": 4,
        "paper": {"close": {"mean": 0.975}, "two/zoo": {"original": 0.881}},
        "out": str(folder / "out"),
        "title": "Near & far",
        "about": "Two folders on two zoos.",
    }
    (folder / "compare.yaml").write_text(json.dumps(options))
    assert main(["compare", "--config", str(folder / "compare.yaml")]) == 0
    return folder / "out"


def test_one_page_holds_the_summary_and_every_report(compared):
    comparison, html = json.loads((compared / "comparison.json").read_text()), (compared / "report.html").read_text()
    assert html.count('<script type="application/json" class="results">') == 4 + 1  # and comparison.json
    assert "Near &amp; far" in html
    assert "97.5" in html
    assert comparison["machine"]
    for row in comparison["summary"]:
        assert row["seeds"] == 2
        if row["zoo"] == "one" and row["name"] == "gaussian":
            assert f"{100 * row['figures']['mean']['mean']:.1f} ± {100 * row['figures']['mean']['std']:.1f}" in html


def test_a_paper_s_figure_stands_beside_the_row_and_the_zoo_that_it_is_of(compared):
    comparison = json.loads((compared / "comparison.json").read_text())
    tables = {zoo: summary_table(zoo, comparison) for zoo in ("one", "two")}
    columns = {zoo: {c.header: list(c.cells) for c in table.columns} for zoo, table in tables.items()}
    assert columns["two"]["paper: original"][columns["two"]["networks"].index("zoo")] == "88.1"
    assert "paper: original" not in columns["one"]
    assert columns["one"]["paper: mean"][columns["one"]["networks"].index("close")] == "97.5"


def test_no_figure_is_cut_in_a_narrow_terminal(compared):
    console = Console(file=StringIO(), width=90)
    console.print(summary_table("one", json.loads((compared / "comparison.json").read_text())))
    assert "…" not in console.file.getvalue()


def test_comparison_json_keeps_its_schema(compared):
    schema = json.loads(files("paramgen.core").joinpath("schemas", "comparison.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((compared / "comparison.json").read_text()), schema)


def report(of: str, seed: int, folder: Path, **means: float) -> Report:
    """An evaluation whose generators have these mean accuracies, on disk."""
    kinds = {"zoo": "reference", "gaussian": "baseline"} | {f"noise-{k}": "baseline" for k in range(8)}
    rows = [
        {
            **example("results#row"),
            "name": name,
            "kind": kinds.get(name, "generator"),
            "n": 9,
            "tasks": None,
            "flags": [],
            "against": [],
            "values": {**blank_values(), "mean": value, "gap": value - means["zoo"]},
        }
        for name, value in means.items()
    ]
    file = folder / f"{of}{seed}.json"
    file.write_text(json.dumps({**example("results"), "score": ACCURACY.to_dict(), "rows": rows}))
    return Report(of, seed, file)


def test_means_spreads_and_paired_differences_are_those_of_the_textbook(tmp_path):
    a, b, zoo = [0.91, 0.93, 0.96, 0.90], [0.90, 0.91, 0.95, 0.88], [0.95, 0.96, 0.99, 0.94]
    reports = [report("z", i, tmp_path, zoo=zoo[i], gaussian=0.5, a=a[i], b=b[i]) for i in range(4)]
    rows = {row["name"]: row for row in summarise(reports)}
    assert rows["a"]["figures"]["mean"] == {
        "mean": pytest.approx(np.mean(a)),
        "std": pytest.approx(np.std(a, ddof=1)),
        "mark": "",
    }
    gaps = np.subtract(a, zoo)
    assert rows["a"]["figures"]["gap"]["mean"] == pytest.approx(gaps.mean())
    assert rows["a"]["figures"]["gap"]["std"] == pytest.approx(gaps.std(ddof=1))
    assert (rows["a"]["n"], rows["a"]["seeds"]) == (9, 4)
    pair, *others = differences(reports)
    assert [(p["first"], p["second"]) for p in others] == [("a", "gaussian"), ("b", "gaussian")]
    assert (pair["first"], pair["second"], pair["seeds"]) == ("a", "b", 4)
    assert pair["mean"] == pytest.approx(np.mean(np.subtract(a, b)))
    textbook = ttest_rel(a, b)
    assert pair["p"] == pytest.approx(textbook.pvalue)
    assert (pair["low"], pair["high"]) == pytest.approx(tuple(textbook.confidence_interval(0.95)))
    assert pair["verdict"] == "better"
    # as far apart on average, but not seed by seed
    mixed = [report("z", i, tmp_path, zoo=zoo[i], a=a[i], b=b[(i + 2) % 4]) for i in range(4)]
    assert differences(mixed)[0]["verdict"] == "alike"
    assert ttest_rel(a, [b[(i + 2) % 4] for i in range(4)]).pvalue > 0.05


def test_a_baseline_that_failed_in_the_first_seed_is_compared_in_the_others(tmp_path):
    reports = [report("z", i, tmp_path, zoo=0.95, gaussian=0.5 + i / 100, a=0.9) for i in range(3)]
    rows = reports[0].results["rows"]
    rows[1] |= {"n": 0, "values": blank_values()}
    (pair,) = differences(reports)
    assert (pair["second"], pair["seeds"]) == ("gaussian", 2)
    del rows[1]
    assert [(row["name"], row["seeds"]) for row in summarise(reports)] == [("zoo", 3), ("a", 3), ("gaussian", 2)]


def test_flags_stand_in_the_summary_with_the_seeds_that_raised_them(compared, tmp_path):
    reports = [report("z", i, tmp_path, zoo=0.9, a=0.8) for i in range(2)]
    raised = (
        [Flag("collapsed"), Flag("nonfinite", "1 of 9")],
        [Flag("collapsed"), Flag("worse", "soup-16"), Flag("nonfinite", "2 of 9")],
    )
    for found, flags in zip(reports, raised, strict=True):
        found.results["rows"][1]["flags"] = [flag._asdict() for flag in flags]
    rows = {row["name"]: row for row in summarise(reports)}
    flags = [(flag["kind"], flag["detail"], flag["seeds"]) for flag in rows["a"]["flags"]]
    assert flags == [("collapsed", None, 2), ("nonfinite", None, 2), ("worse", "soup-16", 1)]
    assert rows["zoo"]["flags"] == []
    comparison = json.loads((compared / "comparison.json").read_text())
    close = next(row for row in comparison["summary"] if row["name"] == "close")
    assert {"kind": "copies", "detail": None, "seeds": 2} in close["flags"]
    close["flags"].append({"kind": "narrow", "detail": None, "seeds": 1})
    results = [json.loads((compared / r["file"]).read_text()) for r in comparison["reports"]]
    html = comparison_page(comparison, results)
    summary = html[: html.index("Each report")]
    assert '<span class="flag">copies</span>' in summary
    assert "narrow (1 of 2 seeds)" in summary


def test_a_figure_at_its_limit_in_every_seed_is_marked(tmp_path):
    reports = [report("z", i, tmp_path, zoo=0.9, a=0.8, b=0.8) for i in range(2)]
    for i, found in enumerate(reports):
        for row, zu in zip(found.results["rows"], (0.1, -2.4, -2.4 + i), strict=True):
            row["values"] |= {"zu": zu, "zu_limit": 2.4}
    rows = {row["name"]: row["figures"]["zu"] for row in summarise(reports)}
    assert [show(rows[name], metric("zu"), ACCURACY) for name in ("zoo", "a", "b")] == [
        "+0.1 ± 0.0",
        "≤ −2.4 ± 0.0",
        "−1.9 ± 0.7",
    ]


def test_one_seed_has_no_spread_and_says_so(compared, tmp_path):
    alone = [report("z", 0, tmp_path, zoo=0.9, a=0.8, b=0.7)]
    (pair,) = differences(alone)
    assert (pair["std"], pair["p"], pair["verdict"]) == (
        None,
        None,
        "alike",
    )  # without an interval nothing is told apart
    comparison = json.loads((compared / "comparison.json").read_text())
    results = json.loads((compared / comparison["reports"][0]["file"]).read_text())
    single = {
        **comparison,
        "seeds": [0],
        "reports": comparison["reports"][:1],
        "differences": [{**pair, "zoo": "one", "first": "close", "second": "far"}],
        "summary": [{**row, "figures": {"mean": {"mean": 0.5, "std": None}}} for row in comparison["summary"]],
    }
    html = comparison_page(single, [results])
    assert "no spread over seeds" in html
    assert "close cannot be told apart from far (+10.0). Points of mean accuracy; one seed, no intervals" in html


def test_one_seed_is_judged_by_its_own_intervals(compared):
    report = Report("one", 0, compared / "seed0" / "one" / "results.json")
    rows = {row["name"]: row for row in report.results["rows"]}
    pairs = {pair["name"]: pair for pair in rows["far"]["against"]}
    found = {pair["second"]: pair for pair in differences([report]) if pair["first"] == "far"}
    assert found.keys() == {"gaussian", "noise-1"}
    for name, pair in found.items():
        assert (pair["low"], pair["high"], pair["verdict"]) == (
            pairs[name]["score"]["low"],
            pairs[name]["score"]["high"],
            pairs[name]["verdict"],
        )


def test_many_baselines_are_corrected_for_their_number(tmp_path):
    means = {f"noise-{k}": 0.9 for k in range(8)}
    gaps = [0.010, 0.012, 0.020]  # p = 0.04 alone: one of many at 5 % is no finding
    reports = [report("z", i, tmp_path, zoo=0.95, a=0.9 + gap, **means) for i, gap in enumerate(gaps)]
    alone = ttest_1samp(gaps, 0).pvalue
    assert alone < 0.05
    found = [pair for pair in differences(reports) if pair["first"] == "a"]
    assert [pair["p"] for pair in found] == pytest.approx([8 * alone] * 8)
    assert {pair["verdict"] for pair in found} == {"alike"}
