"""``paramgen zoo import``: what others wrote becomes a zoo, or is refused by name and leaves nothing behind."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model

import network_kinds
from paramgen.cli.main import main
from paramgen.collect.readers import open_source
from paramgen.collect.readers.found import Reading
from paramgen.core.params import state_tensors
from paramgen.core.weight_files import is_marked, steps_from_names
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError


def make(kind, seed=0):
    torch.manual_seed(seed)
    return getattr(network_kinds, kind)()


def state_of(kind, seed=0):
    return make(kind, seed).state_dict()


def write(folder, states, names=None):
    folder.mkdir(exist_ok=True)
    for i, state in enumerate(states):
        torch.save(state, folder / (names[i] if names else f"n{i}.pt"))


def import_line(tmp_path, kind, *more):
    task = ["--task", "ClassificationTask", "--task.network", f"network_kinds.{kind}", "--score", "false"]
    return ["zoo", "import", "--source", str(tmp_path / "theirs"), "--out", str(tmp_path / "zoo"), *task, *more]


def imported(tmp_path, kind, *more):
    assert main(import_line(tmp_path, kind, *more)) == 0
    return Zoo(tmp_path / "zoo")


def refused(tmp_path, capsys, kind, *more):
    assert main(import_line(tmp_path, kind, *more)) == 2
    assert not (tmp_path / "zoo").exists()
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    return line


@pytest.mark.parametrize(
    "kind", ["Attention", "Scalar", "Tied", "Double", "BFloat16", "Extra", "Complex", "ConvNorm", "Empty"]
)
def test_networks_of_any_kind_come_back_as_they_were(kind, tmp_path):
    states = [state_of(kind, seed) for seed in range(2)]
    write(tmp_path / "theirs", states)
    zoo, network = imported(tmp_path, kind, "--score", "true"), make(kind)
    for i, state in enumerate(states):
        extra = {name: value for name, value in state.items() if name == "_extra_state"}
        network.load_state_dict({**zoo.full(i), **extra}, strict=True)
        assert all(torch.equal(network.state_dict()[name], state[name]) for name in state_tensors(network))
        assert 0 <= zoo.entries[i].scores["val"]["score"] <= 1


def test_extra_state_is_said_not_to_be_stored(tmp_path, capsys):
    write(tmp_path / "theirs", [state_of("Extra", s) for s in range(2)])
    assert "_extra_state" not in imported(tmp_path, "Extra").full(0)
    assert "extra state belongs to the architecture and is not stored: _extra_state" in capsys.readouterr().err


def test_files_of_safetensors_save_model_lack_the_second_name_of_tied_weights(tmp_path):
    (tmp_path / "theirs").mkdir()
    for seed in range(2):
        save_model(make("Tied", seed), str(tmp_path / "theirs" / f"n{seed}.safetensors"))
    zoo = imported(tmp_path, "Tied")
    assert all(torch.equal(zoo.full(i)["c.weight"], state_of("Tied", i)["a.weight"]) for i in range(2))


def test_weights_next_to_a_namespace_are_imported(tmp_path):
    write(tmp_path / "theirs", [{"state_dict": state_of("Plain", s), "args": Namespace(lr=0.1)} for s in range(2)])
    assert len(imported(tmp_path, "Plain")) == 2


def test_half_precision_files_are_stored_in_the_networks_dtype_and_this_is_said(tmp_path, capsys):
    halves = [{name: t.bfloat16() for name, t in state_of("Plain", s).items()} for s in range(2)]
    write(tmp_path / "theirs", halves)
    zoo = imported(tmp_path, "Plain")
    assert "torch.bfloat16 weights of the files are stored as torch.float32" in capsys.readouterr().err
    assert torch.equal(zoo[1]["a.weight"], halves[1]["a.weight"].float())


@pytest.mark.parametrize(("kind", "name"), [("Permuted", "perm"), ("Masked", "keep")])
def test_integer_and_boolean_buffers_that_differ_are_refused_by_name(kind, name, tmp_path, capsys):
    write(tmp_path / "theirs", [state_of(kind, s) for s in range(3)])
    line = refused(tmp_path, capsys, kind)
    assert "n1.pt: " in line
    assert f"'{name}' (" in line
    assert "persistent=False" in line


def test_a_refused_import_does_not_block_the_corrected_one(tmp_path, capsys):
    write(tmp_path / "theirs", [state_of("Plain", s) for s in range(3)])
    (tmp_path / "theirs" / "n2.pt").write_bytes(b"")
    assert "n2.pt: the file is empty" in refused(tmp_path, capsys, "Plain")
    assert "'a.weight' is not generated" in refused_after_repair(tmp_path, capsys)
    assert len(imported(tmp_path, "Plain")) == 3


def refused_after_repair(tmp_path, capsys):
    torch.save(state_of("Plain", 2), tmp_path / "theirs" / "n2.pt")
    return refused(tmp_path, capsys, "Plain", "--parameters", "[b.*]")


def test_a_network_that_cannot_run_on_the_images_is_refused_in_a_line(tmp_path, capsys):
    write(tmp_path / "theirs", [state_of("Plain", s) for s in range(2)])
    line = refused(tmp_path, capsys, "Plain", "--score", "true", "--task.image_size", "16")
    assert "cannot be run on the task's data" in line


def test_files_of_the_generated_layers_alone_take_the_rest_from_the_base_file(tmp_path, capsys):
    whole = [state_of("Plain", s) for s in range(3)]
    parts = [{name: t for name, t in state.items() if name[0] == "b"} for state in whole]
    write(tmp_path / "theirs", parts)
    torch.save({"model": whole[0]}, tmp_path / "rest.pt")
    chosen = ["--parameters", "[b.*]"]
    assert "give a file that holds the others: --base FILE" in refused(tmp_path, capsys, "Plain", *chosen)
    base = ["--base", str(tmp_path / "rest.pt")]
    assert "say which are generated: --parameters" in refused(tmp_path, capsys, "Plain", *base)
    zoo = imported(tmp_path, "Plain", *chosen, *base)
    for i in range(3):
        assert torch.equal(zoo.full(i)["b.weight"], whole[i]["b.weight"])
        assert torch.equal(zoo.full(i)["a.weight"], whole[0]["a.weight"])


def test_a_generated_tensor_is_never_taken_from_the_base_file(tmp_path, capsys):
    write(tmp_path / "theirs", [{"b.weight": state_of("Plain", s)["b.weight"]} for s in range(2)])
    torch.save(state_of("Plain"), tmp_path / "rest.pt")
    line = refused(tmp_path, capsys, "Plain", "--parameters", "[b.*]", "--base", str(tmp_path / "rest.pt"))
    assert "n0.pt: no tensor 'b.bias'" in line


def test_files_are_taken_in_natural_order_with_the_steps_of_their_names(tmp_path):
    steps = [500, 1000, 9, 10, 8]
    write(tmp_path / "theirs", [state_of("Plain", s) for s in steps], [f"checkpoint-{s}.pt" for s in steps])
    zoo = imported(tmp_path, "Plain")
    assert [entry.step for entry in zoo.entries] == [8, 9, 10, 500, 1000]
    assert all(
        torch.equal(zoo[i]["a.weight"], state_of("Plain", e.step)["a.weight"]) for i, e in enumerate(zoo.entries)
    )


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["epoch=0-step=40.ckpt", "epoch=1-step=80.ckpt", "last.ckpt"], [40, 80, 81]),
        (["net_epoch_9_acc_0.91.pth", "net_epoch_10_acc_0.93.pth"], [9, 10]),
        (["model_0008.pth", "model_0010.pth"], [8, 10]),
        (["acc0.91_12.pth", "acc0.93_13.pth"], [12, 13]),
        (["run1_step30.pt", "run2_step30.pt"], [0, 1]),  # a step of its own for none: the order
        (["resnet18_a.pt", "resnet18_b.pt"], [0, 1]),
        (["a.pt", "b.pt"], [0, 1]),
        (["iter_5.bin", "iteration-20.bin"], [5, 20]),
        (["deep_3.pt", "deep_4.pt"], [3, 4]),
    ],
)
def test_steps_are_read_from_names_by_one_rule_for_all_files(names, steps):
    assert steps_from_names([Path(name) for name in names]) == steps


def test_a_last_checkpoint_that_is_a_copy_is_left_out_and_this_is_said(tmp_path, capsys):
    states = [state_of("Plain", s) for s in (0, 1, 1)]
    write(tmp_path / "theirs", states, ["step=8.ckpt", "step=10.ckpt", "last.ckpt"])
    zoo = imported(tmp_path, "Plain")
    assert [entry.step for entry in zoo.entries] == [8, 10]
    assert "skipped last.ckpt: the same network as step=10.ckpt" in capsys.readouterr().err


def test_a_last_checkpoint_that_is_another_network_is_kept_at_the_end(tmp_path):
    write(tmp_path / "theirs", [state_of("Plain", s) for s in range(3)], ["z8.ckpt", "z10.ckpt", "last.ckpt"])
    assert [entry.step for entry in imported(tmp_path, "Plain").entries] == [8, 10, 11]


def test_hidden_files_are_left_out_and_named(tmp_path, capsys):
    write(tmp_path / "theirs", [state_of("Plain", s) for s in range(2)])
    (tmp_path / "theirs" / "._n0.pt").write_bytes(b"\0\5\26\7 of a Mac")
    assert len(imported(tmp_path, "Plain")) == 2
    assert "skipped hidden files: ._n0.pt" in capsys.readouterr().err


def test_marks_are_words_of_their_own():
    assert [
        is_marked(Path(f"{n}.pt")) for n in ("last", "model_best", "last-v1", "blast", "finale", "everlasting")
    ] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_listing_names_what_is_missing(tmp_path):
    for folder, message in ((tmp_path / "none", "no folder"), (tmp_path, "file in")):
        with pytest.raises(ParamgenError, match=message):
            [*open_source(str(folder), None, Reading()).find()]


def test_splits_must_leave_a_network_to_learn_from(tmp_path, capsys):
    write(tmp_path / "theirs", [state_of("Plain", s) for s in range(2)])
    line = refused(tmp_path, capsys, "Plain", "--one_run", "false", "--heldout_networks", "2")
    assert "leave no network to learn from, of 2" in line
