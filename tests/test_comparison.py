import json
import shutil

import pytest

from measured import folder_of, make_zoo
from paramgen.cli import main
from paramgen.comparison import summary_table


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
    assert html.count('<script type="application/json" class="results">') == 4
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
