"""The results pages show exactly what the kept comparisons hold."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import results_page  # noqa: E402
from paramgen.core.score import ACCURACY  # noqa: E402
from paramgen.evaluation.registry import metric  # noqa: E402

COMPARISON = {
    "title": "Two rows",
    "about": "On a smaller task.",
    "command": "paramgen compare --config two",
    "machine": "2 cores",
    "seeds": [0, 1],
    "differences": [],
    "scores": dict.fromkeys(("mlp", "cnn"), ACCURACY.to_dict()),
    "paper": {"mlp/mine": {"best": 0.912}, "cnn/mine": {"median": 0.5}},
    "summary": [
        {
            "zoo": "mlp",
            "name": "zoo",
            "kind": "reference",
            "flags": [],
            "figures": {"mean": {"mean": 0.9, "std": 0.01}, "gap": {"mean": 0.0, "std": 0.0}},
        },
        {
            "zoo": "mlp",
            "name": "mine",
            "kind": "generator",
            "flags": [],
            "figures": {"mean": {"mean": 0.88, "std": 0.02}, "gap": {"mean": -0.02, "std": None}},
        },
    ],
}


def test_a_study_has_its_verdict_before_its_command_and_folds_its_table():
    text = results_page.study("two", COMPARISON)
    order = ["**mlp**: mine 88.0 ± 2.0 %, reference: zoo 90.0 ± 1.0 %.", "paramgen compare --config two", "<details>"]
    assert sorted(order, key=text.index) == order
    assert "2 seeds; 2 cores. Data: [two.json](two.json)." in text


def test_a_study_has_a_paper_s_figures_in_its_table():
    text = results_page.study("two", COMPARISON)
    assert "| mlp | Mean | vs zoo | paper: best |" in text
    assert "| mine | 88.0 ± 2.0 | −2.0 | 91.2 |" in text
    assert "median" not in text


def test_the_index_links_each_study_with_its_verdict():
    text = results_page.pages({"two": COMPARISON})[Path("results.md")]
    assert "## [Two rows](results/two.md)" in text
    assert "- **mlp**: mine 88.0 ± 2.0 %" in text


def test_files_that_are_no_comparisons_are_left_alone(tmp_path):
    (tmp_path / "speed.json").write_text('{"machine": "2 cores"}')
    (tmp_path / "two.json").write_text(json.dumps(COMPARISON))
    assert list(results_page.read(tmp_path)) == ["two"]


def test_the_pages_are_current():
    pages = results_page.pages(results_page.read(results_page.KEPT))
    assert {path: (results_page.DOCS / path).read_text() for path in pages} == pages
    assert {path.name for path in results_page.KEPT.glob("*.md")} == {path.name for path in pages} - {"results.md"}


FIGURE = re.compile(r"[-−+]?\d+\.?\d* ± \d+\.?\d*")
NAMED = re.compile(r"(?:--config |results/|`)(\w+)")
IN_PAGES = (
    "mean",
    "recalibrated",
    "dispersion",
    "structure",
    "run_ratio",
    "run_ratio_aligned",
    "nn_ratio",
)  # metrics that the pages quote
PAGES = [
    "README",
    *(f"docs/{name}" for name in ("d2nwg", "graph", "language", "merging", "pdiff", "sane", "which-generator")),
]


@pytest.fixture(scope="module")
def kept():
    """Means and spreads of each kept comparison, as its page shows them."""
    return {
        name: {
            results_page.show(row["figures"].get(key), metric(key), results_page.score_of(row["zoo"], comparison))
            for row in comparison["summary"]
            for key in IN_PAGES
        }
        for name, comparison in results_page.read(results_page.KEPT).items()
    }


@pytest.mark.parametrize("page", PAGES)
def test_figures_with_a_spread_are_those_of_a_comparison_that_their_line_or_section_names(page, kept):
    strangers = []
    for section in re.split(r"^## ", (ROOT / f"{page}.md").read_text(), flags=re.MULTILINE):
        for line in section.splitlines():
            names = set(NAMED.findall(line)) & set(kept) or set(NAMED.findall(section)) & set(kept)
            figures = set().union(*(kept[name] for name in names))
            strangers += [f"{figure}: {line}" for figure in FIGURE.findall(line) if figure not in figures]
    assert strangers == []
