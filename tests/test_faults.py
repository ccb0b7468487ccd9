"""Commands that are killed or stopped at any moment: a short form of benchmarks/faults.py."""

import json
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import faults  # noqa: E402
import fork_server  # noqa: E402


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """What the commands write undisturbed."""
    with fork_server.Commands() as commands:
        found = faults.Bench(tmp_path_factory.mktemp("faults"), seed=0, commands=commands)
        for case in faults.cases()[:2]:
            found.undisturbed(case, runs=1)
            faults.prepare(found, case)
        yield found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("case", faults.cases()[:2], ids=lambda case: case.name)
def test_a_command_that_is_killed_or_stopped_ends_with_the_same_files_when_it_is_run_again(bench, case, number):
    trials = (bench.interrupted(case, number) for _ in range(20))
    trial = next(trial for trial in trials if trial is not None)  # None: the signal came after the end
    assert trial.problems == []


def test_the_table_in_the_docs_is_the_measured_one():
    measured = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text())
    assert faults.table(measured) in (ROOT / "docs" / "reliability.md").read_text()
    assert measured["machine"] in (ROOT / "docs" / "reliability.md").read_text()
    for row in measured["rows"]:
        assert row["survived"] == row["tried"], row


def test_the_trials_see_what_is_torn_and_what_is_left_behind(bench, tmp_path):
    for name in ("a.safetensors", "b.json", "c.png", "d.html", "e.ckpt"):
        (tmp_path / name).write_bytes(b"\x89PNG{")
    (tmp_path / ".f.json.x.paramgen-tmp").touch()
    assert [line.split(": ")[1] for line in faults.torn(tmp_path)] == [
        "a.safetensors",
        "b.json",
        "c.png",
        "d.html",
        "e.ckpt",
    ]
    assert faults.hidden(tmp_path) == ["left behind: .f.json.x.paramgen-tmp"]
