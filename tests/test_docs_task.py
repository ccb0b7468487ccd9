"""The task in docs/own-task.md is a complete one: its code and its commands run as they stand there."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from paramgen.cli.main import main
from paramgen.core.zoo import Zoo

DOCS = Path(__file__).parents[1] / "docs"
SMALLER = {  # options of the commands, so that they take seconds
    "collect": {"--runs": "5", "--checkpoints": "3", "--heldout_runs": "1", "--epochs": "12"},
    "fit": {"--trainer.max_steps": "20", "--quality.sample_every": "10", "--trainer.logger": "false"},
    "sample": {"--n": "4"},
    "evaluate": {"--n": "4", "--baselines": "[soup-2, noise-1]"},
}


def section():
    text = (DOCS / "own-task.md").read_text()
    return text[text.index("## A task of your own") : text.index("## A scorer of your own")]


def block(language):
    (code,) = re.findall(rf"```{language}\n(.*?)```", section(), re.DOTALL)
    return code


def commands():
    for line in block("bash").splitlines():
        name, command, *words = shlex.split(line)
        assert name == "paramgen"
        options = {**dict(zip(words[::2], words[1::2], strict=True)), **SMALLER[command]}
        yield [command, *(word for option in options.items() for word in option)]


def test_the_class_has_fifteen_lines():
    lines = [line for line in block("python").partition("class ")[2].splitlines() if line.strip()]
    assert len(lines) == 15


def test_code_and_commands_run_as_they_stand_in_the_docs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("diabetes.py").write_text(block("python"))
    for words in commands():
        assert main(words) == 0, (words, capsys.readouterr().err)
    assert "samples are not scored" not in capsys.readouterr().err
    zoo = Zoo("zoo")
    assert (zoo.score.name, zoo.score.higher_is_better) == ("RMSE", False)
    scores = [entry.scores["val"]["score"] for entry in zoo.entries]
    assert 40 < min(scores) <= max(scores) < 160  # in the data's own unit, whose standard deviation is 77
    results = json.loads(Path("report/results.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["zoo", "held-out runs", "samples", "soup-2", "noise-1"]
    assert results["score"]["name"] == "RMSE"
    sys.modules.pop("diabetes")


@pytest.mark.parametrize("anchor", re.findall(r"\]\(([\w-]+\.md#[\w-]+)\)", (DOCS / "own-task.md").read_text()))
def test_links_lead_to_sections(anchor):
    file, _, heading = anchor.partition("#")
    headings = re.findall(r"^#+ (.*)$", (DOCS / file).read_text(), re.MULTILINE)
    assert heading in {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}
