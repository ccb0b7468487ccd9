"""docs/results.md holds what the kept comparisons hold, and nothing else."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import results_page  # noqa: E402

COMPARISON = {
    "title": "Two rows",
    "about": "On a smaller task.",
    "command": "paramgen compare --config two",
    "machine": "2 cores",
    "seeds": [0, 1],
    "differences": [],
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


def test_a_section_has_command_machine_and_a_paper_s_figures_beside_ours():
    text = results_page.section("two", COMPARISON)
    assert "paramgen compare --config two" in text
    assert "2 seeds; 2 cores" in text
    assert "| mlp | Mean | vs zoo | paper: best |" in text
    assert "| mine | 88.0 ± 2.0 | -2.0 | 91.2 |" in text
    assert "median" not in text


def test_files_that_are_no_comparisons_are_left_alone(tmp_path):
    (tmp_path / "speed.json").write_text('{"machine": "2 cores"}')
    (tmp_path / "two.json").write_text(json.dumps(COMPARISON))
    assert list(results_page.read(tmp_path)) == ["two"]


@pytest.mark.skipif(not results_page.PAGE.exists(), reason="no results are kept")
def test_the_page_is_what_the_kept_files_give():
    assert results_page.PAGE.read_text() == results_page.page(results_page.read(results_page.KEPT))
