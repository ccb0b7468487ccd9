"""A bar on a terminal, elsewhere a line a minute; how long scoring will take."""

import io

from rich.console import Console

from paramgen.collect.single import main as collect
from paramgen.core.progress import ProgressDisplay, announce_scoring, duration
from paramgen.tasks import ClassificationTask


class Clock:
    """Seconds that go by as they are told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_off_a_terminal_there_is_a_line_a_minute(capsys):
    clock = Clock()
    with ProgressDisplay(Console(file=io.StringIO(), force_terminal=False), clock) as progress:
        progress.begin("fine-tune", 600)
        for step in range(1, 601):
            clock.now, progress.written = 0.5 * step, step // 10
            progress.update(step)
    assert capsys.readouterr().out.splitlines() == [
        "fine-tune: 120 of 600, 12 networks written, about 4 min left",
        "fine-tune: 240 of 600, 24 networks written, about 3 min left",
        "fine-tune: 360 of 600, 36 networks written, about 2 min left",
        "fine-tune: 480 of 600, 48 networks written, about 60 s left",
        "fine-tune: 600 of 600, 60 networks written, about 0 s left",
    ]


def test_time_left_counts_from_where_a_resumed_run_began(capsys):
    clock = Clock()
    progress = ProgressDisplay(Console(file=io.StringIO(), force_terminal=False), clock)
    progress.begin("fine-tune", 1000, done=900)
    clock.now = 60.0
    progress.update(950)
    assert "about 60 s left" in capsys.readouterr().out


def test_on_a_terminal_there_is_a_bar_and_no_line(capsys):
    clock, screen = Clock(), io.StringIO()
    with ProgressDisplay(Console(file=screen, force_terminal=True), clock) as progress:
        progress.begin("fine-tune", 10)
        clock.now = 100.0
        progress.update(10)
    assert "fine-tune" in screen.getvalue()
    assert "10/10" in screen.getvalue()
    assert capsys.readouterr().out == ""


def test_long_scoring_is_announced_and_short_scoring_is_not(capsys):
    clock = Clock()

    def score():
        clock.now += 0.5

    announce_scoring(score, 9, 100, clock)
    assert capsys.readouterr().out == ""
    announce_scoring(score, 400, 100, clock)
    assert capsys.readouterr().out == "scoring 100 networks will take about 3 min\n"


def test_durations_are_in_a_unit_that_suits_them():
    assert [duration(s) for s in (5, 89.6, 91, 5400, 9000)] == ["5 s", "90 s", "2 min", "1 h 30 min", "2 h 30 min"]


def test_a_short_collect_off_a_terminal_says_only_its_result(tmp_path, capsys):
    collect(ClassificationTask(), str(tmp_path / "zoo"), checkpoints=2, epochs=1)
    assert len(capsys.readouterr().out.splitlines()) == 1
