"""Words that help: a missing zoo names the command that makes it, and every command says what to do next."""

import json
import shlex
import subprocess
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from conftest import write_zoo
from paramgen.cli.dispatch import FUNCTIONS, LIGHTNING
from paramgen.cli.given import (
    SECTIONS,
    arguments_in_source,
    options,
    require_known_names,
    require_zoo,
    value_given,
    without_options,
)
from paramgen.cli.main import main
from paramgen.cli.next_step import NEXT, next_step
from paramgen.core.paths import commands_for, list_configs, zoo_recipes
from paramgen.core.trust import import_class
from paramgen.errors import ParamgenError

SILENT = {"configs", "completion"}  # their output is what the user asked for, and names commands itself
QUIET = ["--trainer.enable_progress_bar", "false", "--quality.sample_every", "0"]


def following(capsys, *words):
    """The line after a command that succeeds."""
    assert main([*map(str, words)]) == 0, capsys.readouterr().err
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("next: ")]
    assert len(lines) == 1, words
    return lines[0].removeprefix("next: ")


def test_a_fit_without_its_zoo_says_what_makes_it_before_torch_is_imported(tmp_path):
    code = (
        "import sys; from paramgen.cli.main import main; code = main(['fit', '--config', 'rpg_vit_base.yaml']); "
        "print(code, {'torch', 'lightning', 'jsonargparse'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "2 set()\n"
    assert done.stderr.endswith("paramgen collect --config vit_base_imagenet makes it.\n")
    assert done.stderr.count("\n") == 1


def test_mistakes_in_names_are_answered_before_lightning_is_imported(tmp_path):
    write_zoo(tmp_path / "zoo")
    (tmp_path / "taken").mkdir()
    for name in ("taken/samples.json", "taken/file"):
        (tmp_path / name).write_text("{}")
    zoo = str(tmp_path / "zoo")
    compare = ["compare", "--zoos", json.dumps({"a": {"path": zoo}}), "--generators"]
    mistakes = {
        "samples taken already": ["sample", "--ckpt_path", "taken/file", "--out", "taken"],
        "checkpoint of sample": ["sample", "--ckpt_path", "none.ckpt"],
        "checkpoint that is none": ["sample", "--ckpt_path", "taken/file", "--out", "new"],
        "option of sample": ["sample", "--ckpt_pth", "none.ckpt"],
        "no option of sample": ["sample"],
        "no option of evaluate": ["evaluate"],
        "no option of validate": ["validate"],
        "file taken already": ["consolidate", "--ckpt_path", "none.ckpt", "--out", "taken/file"],
        "checkpoint of push": ["generator", "push", "--ckpt_path", "none.ckpt", "--repo", "a/b"],
        "checkpoint of unseen": ["unseen", "--zoo", zoo, "--ckpt_path", "none.ckpt"],
        "checkpoint of interpolate": ["interpolate", "--zoo", zoo, "--tasks", "[a, b]", "--ckpt_path", "[none.ckpt]"],
        "code of flips": ["flips", "--zoo", zoo, "--codes", "0"],
        "samples of evaluate": ["evaluate", "--zoo", zoo, "--samples", "none"],
        "checkpoint of fit": ["fit", "--config", "pdiff", "--data.zoo", zoo, "--ckpt_path", "none.ckpt"],
        "checkpoint of validate": ["validate", "--config", "pdiff", "--data.zoo", zoo],
        "zoo of a config that follows it": ["fit", "--config", "pdiff"],
        "setting of the trainer": ["fit", "--config", "pdiff", "--data.zoo", zoo, "--trainer.max_stepz", "5"],
        "setting of the data": ["fit", "--config", "pdiff", "--data.zoo", zoo, "--data.batchsize=3"],
        "option of fit": ["fit", "--config", "pdiff", "--data.zoo", zoo, "--ckpt_pth", "last"],
        "setting without its section": ["fit", "--config", "pdiff", "--data.zoo", zoo, "--max_steps", "5"],
        "section": ["fit", "--config", "pdiff", "--data.zoo", zoo, "--trainr.max_steps", "5"],
        "setting in a config": [
            "fit",
            "--config",
            "pdiff",
            "--config",
            "{checkpoint: {dir_path: x}}",
            "--data.zoo",
            zoo,
        ],
        "setting of plan": ["plan", "--config", "pdiff", "--data.zoo", zoo, "--quality.samples_every", "5"],
        "zoo of plan": ["plan", "--config", "pdiff", "--data.zoo", "digits_relable"],
        "device of plan": ["plan", "--config", "pdiff", "--data.zoo", "digits_relabel", "--device", "h10"],
        "config of compare": [*compare, '{"a": {"fit": "pdif"}}'],
        "checkpoint of compare": [*compare, '{"a": {"ckpt_path": "none.ckpt"}}'],
        "samples of compare": [*compare, '{"a": {"samples": "none"}}'],
    }
    code = (
        "import json, sys; from paramgen.cli.main import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    print(main(words), 'lightning' in sys.modules)\n"
    )
    line = [sys.executable, "-c", code, json.dumps([*mistakes.values()])]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert dict(zip(mistakes, done.stdout.splitlines(), strict=True)) == dict.fromkeys(mistakes, "2 False")
    assert done.stderr.count("\n") == len(mistakes), done.stderr
    assert done.stderr.count("unknown option --ckpt_pth. Did you mean '--ckpt_path'?") == 2
    assert "unknown option --max_steps. Did you mean '--trainer.max_steps'?" in done.stderr


def test_settings_that_are_known_without_an_import_are_those_of_the_classes():
    from paramgen.generators.callbacks import LearningRates
    from paramgen.generators.checkpoints import Checkpoints

    assert {name for name, path in SECTIONS.items() if path is None} == {"model", "stop_requests"}
    classes = {name: import_class(path, object, "class") for name, path in SECTIONS.items() if path}
    for name, cls in {**classes, "checkpoint": Checkpoints, "lr_monitor": LearningRates}.items():
        assert arguments_in_source(SECTIONS[name]) == [*signature(cls).parameters], name
    for verb in LIGHTNING:
        assert (
            arguments_in_source(SECTIONS["trainer"], verb)
            == [*signature(getattr(classes["trainer"], verb)).parameters][1:]
        )
    require_known_names("fit", ["--trainer.callbacks+=X", "--model.anything", "3", "--trainer.logger.save_dir", "-0.5"])
    require_known_names(
        "fit", ["--seed_everything", "3", "--ckpt_path=last", "--model", "PDiff", "--trainer", "t.yaml"]
    )
    require_known_names("validate", ["--verbose", "true"])
    require_known_names("plan", ["--json", "--device", "h100"])


@pytest.mark.parametrize("config", [*list_configs(), *(f"trainer/{name}" for name in list_configs("trainer"))])
def test_the_settings_of_each_shipped_config_are_known(config):
    require_known_names("fit", ["--config", config])


@pytest.mark.parametrize("config", list_configs())
def test_the_zoo_of_each_shipped_config_is_made_by_a_command_that_exists(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PARAMGEN_ZOO", raising=False)
    zoo = value_given(["--config", config], "data.zoo")
    if zoo is None:  # the config is for any zoo
        require_zoo(["--config", config], "data.zoo")
        return
    with pytest.raises(ParamgenError, match=r"paramgen collect.* makes it\.$"):
        require_zoo(["--config", config], "data.zoo")
    command, *others = (shlex.split(line) for line in commands_for(zoo))
    assert command[:3] == ["paramgen", "collect_tasks" if zoo_recipes()[command[3]].of_tasks else "collect", "--config"]
    for other in others:
        assert other == ["paramgen", "zoo", "align", "--zoo", command[3], "--out", f"checkpoints_zoo/{zoo}"]


def test_the_last_word_on_a_zoo_counts_and_help_needs_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert value_given(["--data.zoo", "a", "--config", "pdiff_digits_mlp"], "data.zoo") == "digits_mlp_trajectory"
    assert value_given(["--config", "pdiff_digits_mlp", "--data.zoo=a"], "data.zoo") == "a"
    assert value_given(["--config", "pdiff_digits_mlp", "--data", "file.yaml"], "data.zoo") is None
    assert value_given(["--zoo", "null"], "zoo") is None
    for asks in ("--help", "--print_config", "--model.help"):
        require_zoo(["--config", "pdiff_digits_mlp", asks], "data.zoo")
    assert commands_for("other/digits_relabel") == [
        "paramgen collect_tasks --config digits_relabel --out other/digits_relabel"
    ]
    assert [*options(["--a=1", "--b", "2"])] == [("--a", "1"), ("--b", "2")]
    assert [*options([])] == []
    words = ["--config", "x", "--device", "h100", "--json", "--devices=2", "--data.zoo", "z"]
    assert without_options(words, ("device", "devices", "json"), ("json",)) == ["--config", "x", "--data.zoo", "z"]


@pytest.mark.parametrize(("task", "follows"), [(None, "sample --ckpt_path c.ckpt --zoo"), ("0110", "evaluate --zoo")])
def test_samples_that_no_task_scores_lead_to_samples_that_tasks_score(task, follows, tmp_path):
    (tmp_path / "zoo.json").write_text(json.dumps({"entries": [{"task": "0110"}]}))
    (tmp_path / "samples.json").write_text(json.dumps({"zoo": str(tmp_path), "networks": [{"task": task}]}))
    line = next_step("sample", {"ckpt_path": "c.ckpt", "zoo": None, "trust": False}, tmp_path)
    assert line is not None
    assert line.startswith(f"paramgen {follows} {tmp_path}")


@pytest.mark.parametrize(
    "command", ["evaluate", "sample", "merge", "unseen", "interpolate", "flips", "tickets", "adapters"]
)
def test_other_commands_refuse_a_missing_zoo_too(command, capsys):
    assert main([command, "--zoo", "digits_relabel_"]) == 2
    assert main([command, "--zoo", "somewhere/digits_relabel"]) == 2
    assert "collect_tasks --config digits_relabel --out somewhere/digits_relabel makes it" in capsys.readouterr().err


def test_each_printed_line_leads_to_the_next_up_to_the_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PARAMGEN_ZOO", raising=False)
    smaller = ["--runs", 3, "--checkpoints", 4, "--epochs", 2]
    line = following(capsys, "collect", "--config", "digits_mlp_trajectory", *smaller)
    assert line == "paramgen fit --config pdiff_digits_mlp"
    root = ["--trainer.default_root_dir", tmp_path / "elsewhere", "--trainer.max_steps", 10, *QUIET]
    line = following(capsys, *shlex.split(line)[1:], *root)
    checkpoint = tmp_path / "elsewhere/lightning_logs/version_0/checkpoints/last.ckpt"
    assert line == f"paramgen sample --ckpt_path {checkpoint}"
    again = following(capsys, "validate", "--config", "pdiff_digits_mlp", "--ckpt_path", "last", *root)
    assert Path(again.rpartition(" ")[2]).samefile(checkpoint)
    assert not Path("runs").exists()
    line = following(capsys, *shlex.split(line)[1:], "--n", 2)
    assert line == "paramgen evaluate --zoo digits_mlp_trajectory --samples samples"
    assert next_step("consolidate", {}, "c.ckpt") == "paramgen sample --ckpt_path c.ckpt --out samples_2"
    line = following(capsys, *shlex.split(line)[1:], "--n", 2, "--baselines", "none")
    assert line == "open runs/evaluate/report.html"
    line = following(
        capsys, "evaluate", "--zoo", "digits_mlp_trajectory", "--n", 2, "--baselines", "none", "--out", "r"
    )
    assert line == "open r/report.html, then paramgen fit --config pdiff_digits_mlp"


def test_commands_on_zoos_lead_to_a_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_zoo(tmp_path / "my zoo")
    fit = "paramgen fit --config pdiff --data.zoo 'my zoo'"
    assert following(capsys, "zoo", "info", "--zoo", "my zoo") == fit
    assert following(capsys, "zoo", "verify", "--zoo", "my zoo") == fit
    Path("files").mkdir()
    for i in range(3):
        torch.save(torch.nn.Linear(2, 2).state_dict(), f"files/{i}.pt")
    line = following(capsys, "zoo", "import", "--source", "files", "--out", "imported")
    assert line == "paramgen fit --config pdiff --data.zoo imported"
    assert next_step("zoo align", {"out": "aligned"}, None) == "paramgen fit --config pdiff --data.zoo aligned"
    assert next_step("zoo merge", {"zoo": "parts"}, None) == "paramgen fit --config pdiff --data.zoo parts"
    assert next_step("collect", {"out": "parts", "shard": "1/2"}, None) is None  # the command says what is missing
    line = next_step("collect", {"out": "elsewhere/digits_mlp_trajectory", "shard": "merge"}, None)
    assert line == "paramgen fit --config pdiff_digits_mlp --data.zoo elsewhere/digits_mlp_trajectory"


def test_a_plan_leads_to_its_fit_and_before_it_to_its_zoo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = {"words": ["--config", "rpg_vit_base", "--device", "h100", "--json"]}
    fits, misfit = SimpleNamespace(misfit=None), SimpleNamespace(misfit="memory")
    made = "paramgen collect --config vit_base_imagenet && paramgen fit --config rpg_vit_base"
    assert next_step("plan", words, fits) == made
    assert "--device" in next_step("plan", words, misfit)
    write_zoo(tmp_path / "checkpoints_zoo/vit_base_imagenet")
    assert next_step("plan", words, fits) == "paramgen fit --config rpg_vit_base"
    assert next_step("consolidate", {}, Path("one.ckpt")) == "paramgen sample --ckpt_path one.ckpt"
    assert next_step("compare", {"out": "runs/x"}, {}) == "open runs/x/report.html"


@pytest.mark.parametrize(
    ("command", "arguments", "result", "line"),
    [
        ("zoo convert", {"out": "mine/nets"}, None, "zoo import --source mine/nets --out checkpoints_zoo/nets"),
        (
            "zoo push",
            {"repo": "ann/nets", "zoo": "."},
            None,
            "zoo pull --repo ann/nets --out checkpoints_zoo/here, on another machine",
        ),
        ("unseen", {"zoo": "tasks"}, "b.ckpt", "sample --ckpt_path b.ckpt --zoo tasks"),
        ("unseen", {"zoo": "tasks"}, None, "fit --config pdiff --data.zoo tasks"),
    ],
)
def test_a_next_step_names_what_the_command_knows(command, arguments, result, line, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert next_step(command, arguments, result) == f"paramgen {line}"


def test_every_command_says_what_to_do_next():
    verbs = {
        f"{name} {verb}" if verb else name
        for name, table in FUNCTIONS.items()
        for verb in getattr(import_module(f"paramgen.{table.module}"), "COMMANDS", [""])
    }
    assert {*verbs, *LIGHTNING} - SILENT == set(NEXT)
