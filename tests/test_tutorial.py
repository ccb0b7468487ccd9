"""The tutorial runs as it is written: its files, its loop and its commands, with fewer steps and baselines."""

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import torch

from docs_pages import commands
from paramgen.cli.main import main
from paramgen.core.zoo import Zoo

TEXT = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text()
SMALLER = {
    "zoo": [],
    "fit": ["--trainer.max_steps", "20", "--quality.sample_every", "10", "--trainer.enable_progress_bar", "false"],
    "sample": ["--n", "4"],
    "evaluate": ["--n", "4", "--baselines", "[soup-2]"],
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_code_and_commands_lead_from_plain_torch_to_the_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, code in zip(re.findall(r"[Ss]ave this as `(.*?)`", TEXT), blocks("python"), strict=True):
        assert "paramgen" not in code
        Path(name).write_text(code)
    first, *lines = commands(blocks("bash")[0])
    assert first == "python train.py"
    runpy.run_path("train.py")
    for line in lines:
        program, command, *words = shlex.split(line)
        assert program == "paramgen"
        assert main([command, *words, *SMALLER[command]]) == 0, (line, capsys.readouterr().err)
    network, zoo = sys.modules["regression"].Net(), Zoo("zoo")
    network.load_state_dict(torch.load("checkpoints/network7.pt", weights_only=True))
    assert zoo.entries[7].scores["val"]["score"] == sys.modules["regression"].rmse(network, "val").item()
    results = json.loads(Path("report/results.json").read_text())
    means = {row["name"]: row["values"]["mean"] for row in results["rows"]}
    assert list(means) == ["zoo", "held-out runs", "samples", "soup-2"]
    assert results["score"]["name"] == "rmse"
    assert 45 < means["zoo"] < 65  # the target's standard deviation is 77
    assert means["samples"] < 77
    sys.modules.pop("regression")
