import json
import shutil
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from scipy.stats import ttest_rel

from examples import example
from measured import folder_of, make_zoo
from paramgen.cli import main
from paramgen.comparison import Report, differences, summarise, summary_table
from paramgen.report import comparison_page


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


def test_comparison_json_keeps_its_schema(compared):
    schema = json.loads(files("paramgen").joinpath("comparison.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((compared / "comparison.json").read_text()), schema)


def report(of: str, seed: int, folder: Path, **means: float) -> Report:
    """An evaluation whose generators have these mean accuracies, on disk."""
    kinds = {"zoo": "reference", "gaussian": "baseline"}
    blank = dict.fromkeys(
        ("nn_ratio", "nn_ratio_aligned", "zu", "id_match", "iou_wrong_max", "dispersion", "fit_seconds")
    )
    rows = [
        {
            **example("results#row"),
            "name": name,
            "kind": kinds.get(name, "generator"),
            "n": 9,
            "flags": [],
            "accuracy": dict.fromkeys(("mean", "best", "median", "min", "std", "selected"), value),
            **blank,
        }
        for name, value in means.items()
    ]
    file = folder / f"{of}{seed}.json"
    file.write_text(json.dumps({**example("results"), "rows": rows}))
    return Report(of, seed, file)


def test_means_spreads_and_paired_differences_are_those_of_the_textbook(tmp_path):
    a, b, zoo = [0.91, 0.93, 0.96, 0.90], [0.90, 0.91, 0.95, 0.88], [0.95, 0.96, 0.99, 0.94]
    reports = [report("z", i, tmp_path, zoo=zoo[i], gaussian=0.5, a=a[i], b=b[i]) for i in range(4)]
    rows = {row["name"]: row for row in summarise(reports)}
    assert rows["a"]["figures"]["mean"] == {"mean": pytest.approx(np.mean(a)), "std": pytest.approx(np.std(a, ddof=1))}
    gaps = np.subtract(a, zoo)
    assert rows["a"]["figures"]["gap"] == {"mean": pytest.approx(gaps.mean()), "std": pytest.approx(gaps.std(ddof=1))}
    assert (rows["a"]["n"], rows["a"]["seeds"]) == (9, 4)
    (pair,) = differences(reports)
    assert (pair["first"], pair["second"], pair["seeds"]) == ("a", "b", 4)
    assert pair["mean"] == pytest.approx(np.mean(np.subtract(a, b)))
    assert pair["told_apart"] == (ttest_rel(a, b).pvalue < 0.05) == True  # noqa: E712
    # as far apart on average, but not seed by seed
    mixed = [report("z", i, tmp_path, zoo=zoo[i], a=a[i], b=b[(i + 2) % 4]) for i in range(4)]
    assert differences(mixed)[0]["told_apart"] is False
    assert ttest_rel(a, [b[(i + 2) % 4] for i in range(4)]).pvalue > 0.05


def test_flags_stand_in_the_summary_with_the_seeds_that_raised_them(compared, tmp_path):
    reports = [report("z", i, tmp_path, zoo=0.9, a=0.8) for i in range(2)]
    raised = (
        ["collapsed", "1 of 9 networks hold NaN or inf"],
        ["collapsed", "copies", "2 of 9 networks hold NaN or inf"],
    )
    for found, flags in zip(reports, raised, strict=True):
        found.results["rows"][1]["flags"] = flags
    rows = {row["name"]: row for row in summarise(reports)}
    assert rows["a"]["flags"] == {"collapsed": 2, "networks hold NaN or inf": 2, "copies": 1}
    assert rows["zoo"]["flags"] == {}
    comparison = json.loads((compared / "comparison.json").read_text())
    close = next(row for row in comparison["summary"] if row["name"] == "close")
    assert close["flags"]["copies"] == 2
    close["flags"]["narrow"] = 1
    results = [json.loads((compared / r["file"]).read_text()) for r in comparison["reports"]]
    html = comparison_page(comparison, results)
    summary = html[: html.index("Each report")]
    assert '<span class="flag">copies</span>' in summary
    assert "narrow (1 of 2 seeds)" in summary


def test_one_seed_has_no_spread_and_says_so(compared, tmp_path):
    alone = [report("z", 0, tmp_path, zoo=0.9, a=0.8, b=0.7)]
    (pair,) = differences(alone)
    assert (pair["std"], pair["told_apart"]) == (None, None)
    comparison = json.loads((compared / "comparison.json").read_text())
    results = json.loads((compared / comparison["reports"][0]["file"]).read_text())
    single = {
        **comparison,
        "seeds": [0],
        "reports": comparison["reports"][:1],
        "differences": [{**pair, "zoo": "one"}],
        "summary": [{**row, "figures": {"mean": {"mean": 0.5, "std": None}}} for row in comparison["summary"]],
    }
    html = comparison_page(single, [results])
    assert "no spread over seeds" in html
    assert "a less b: +10.0 points in mean accuracy, of one seed." in html
