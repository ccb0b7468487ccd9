"""The recorded command line gives back the arguments of the call."""

import shlex
from inspect import signature

import pytest

from paramgen.cli.commands import compare, evaluate
from paramgen.cli.dispatch import arguments_of
from paramgen.collect import single as collect
from paramgen.collect.train import OptimSettings
from paramgen.core.command_line import command_line, typed
from paramgen.tasks import ClassificationTask


def read_again(function, prog, line):
    words = shlex.split(line)
    assert words[:2] == prog.split()
    return arguments_of(function, prog, "", words[2:])


@pytest.mark.parametrize("config", ["digits", "pdiff_figure4", "rpg_table16", "wild_table1_paper"])
def test_a_comparison_recorded_is_the_comparison_that_was_configured(config):
    given = arguments_of(compare.main, "paramgen compare", "compare", ["--config", config])
    line = command_line("paramgen compare", compare.main, given)
    assert read_again(compare.main, "paramgen compare", line) == given


def test_a_switch_needs_no_value():
    line = ["--zoo", "z", "--aligned", "--trust", "--device", "cpu", "--finetune", "false"]
    given = arguments_of(evaluate.main, "paramgen evaluate", "", line)
    assert [given[name] for name in ("aligned", "trust", "device", "finetune")] == [True, True, "cpu", False]
    assert arguments_of(evaluate.main, "paramgen evaluate", "", ["--zoo", "z", "--trust"])["trust"] is True


def test_names_with_spaces_and_brackets_survive():
    arguments = {"zoo": "my zoo", "samples": ["a, b", "c]"], "baselines": "none", "aligned": True}
    given = {**arguments_of(evaluate.main, "paramgen evaluate", "", ["--zoo", "x"]), **arguments}
    line = command_line("paramgen evaluate", evaluate.main, given)
    assert read_again(evaluate.main, "paramgen evaluate", line) == given


def test_a_task_and_settings_are_written_as_their_configs():
    task, optim = ClassificationTask(network="mlp", network_args={"hidden": [8]}), OptimSettings(lr=0.5)
    given = arguments_of(collect.main, "paramgen collect", "zoo", ["--config", "digits_mlp_seeds20", "--out", "o"])
    line = command_line("paramgen collect", collect.main, {**given, "task": task, "optim": optim})
    again = read_again(collect.main, "paramgen collect", line)
    assert again["task"].config() == task.config()
    assert again["optim"] == optim


def test_a_command_that_was_typed_is_recorded_as_it_was_typed_and_calls_within_it_are_not():
    call = dict.fromkeys(signature(evaluate.main).parameters) | {"zoo": "z"}
    with typed(["compare", "--config", "digits", "--out", "my runs"]):
        assert command_line("paramgen compare", compare.main, {}) == "paramgen compare --config digits --out 'my runs'"
        assert command_line("paramgen evaluate", evaluate.main, call).startswith("paramgen evaluate --zoo z")
    assert command_line("paramgen evaluate", evaluate.main, call).startswith("paramgen evaluate --zoo z")
