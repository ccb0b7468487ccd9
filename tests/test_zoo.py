import errno
import json
import os

import pytest
import torch

import paramgen.core.io
from conftest import TinyNet, vary, write_zoo
from paramgen.core.io import write_atomic
from paramgen.core.params import ParamSpec
from paramgen.core.paths import find_zoo
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError


def writer_at(path, **recipe):
    model = TinyNet()
    return ZooWriter(
        path, ParamSpec.of(model), {"steps": torch.tensor(7)}, {"class_path": "x", "init_args": {}}, recipe
    )


def test_network_comes_back_bit_for_bit_and_loads_strictly(tmp_path):
    zoo = write_zoo(tmp_path / "z")
    expected = vary(TinyNet(), 0)
    assert all(torch.equal(zoo[0][name], expected[name]) for name in zoo.spec.names)
    model = TinyNet()
    state = zoo.full(0)
    state["norm.num_batches_tracked"] = torch.tensor(0)
    model.load_state_dict(state, strict=True)


def test_splits_are_by_run(tiny_zoo):
    runs = {split: {tiny_zoo.entries[i].run for i in tiny_zoo.indices(split)} for split in ("train", "val", "heldout")}
    assert all(runs.values())
    assert not runs["train"] & runs["val"]
    assert not runs["train"] & runs["heldout"]


def test_statistics_are_of_the_train_split(tiny_zoo):
    matrix = torch.stack([tiny_zoo[i]["linear.weight"] for i in tiny_zoo.indices("train")]).double()
    saved = tiny_zoo.meta["statistics"]["linear.weight"]
    assert saved["mean"] == pytest.approx(matrix.mean().item(), abs=1e-9)
    assert saved["std"] == pytest.approx(matrix.std(correction=0).item(), rel=1e-6)


def test_interrupted_zoo_goes_on(tmp_path):
    first = writer_at(tmp_path / "z", lr=1.0)
    first.add(vary(TinyNet(), 0), run=0, step=1, seed=0)
    with (tmp_path / "z" / "zoo.partial.jsonl").open("a") as journal:
        journal.write('{"file": "run0000_st')  # killed in the middle of a line
    with pytest.raises(ParamgenError, match="Unknown zoo"):
        Zoo(tmp_path / "z")
    second = writer_at(tmp_path / "z", lr=1.0)
    assert second.done == {(0, 1)}
    second.add(vary(TinyNet(), 1), run=0, step=2, seed=0)
    zoo = second.close()
    assert [e.step for e in zoo.entries] == [1, 2]
    assert zoo.verify() == []


def test_other_recipe_is_refused_by_name(tmp_path):
    writer_at(tmp_path / "z", lr=1.0).add(vary(TinyNet(), 0), run=0, step=1, seed=0)
    with pytest.raises(ParamgenError, match=r"lr=1\.0, now lr=2\.0"):
        writer_at(tmp_path / "z", lr=2.0)


def test_finished_zoo_is_not_overwritten(tmp_path):
    write_zoo(tmp_path / "z")
    with pytest.raises(ParamgenError, match="already holds a zoo"):
        writer_at(tmp_path / "z")


def test_nan_network_is_refused_by_name(tmp_path):
    state = vary(TinyNet(), 0)
    state["linear.bias"] = torch.full((3,), torch.nan)
    with pytest.raises(ParamgenError, match=r"run 3, step 5: 'linear.bias' holds 3 NaN"):
        writer_at(tmp_path / "z").add(state, run=3, step=5, seed=0)


def test_full_disk_leaves_what_was_written(tmp_path, monkeypatch):
    writer = writer_at(tmp_path / "z")
    writer.add(vary(TinyNet(), 0), run=0, step=0, seed=0)

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(paramgen.core.io.os, "fsync", full)
    with pytest.raises(ParamgenError, match="the disk is full"):
        writer.add(vary(TinyNet(), 1), run=0, step=1, seed=0)
    monkeypatch.undo()
    assert not list((tmp_path / "z").glob(".*"))
    again = writer_at(tmp_path / "z")
    assert again.done == {(0, 0)}
    assert again.close().verify() == []


def test_altered_truncated_and_missing_files_are_named(tmp_path):
    zoo = write_zoo(tmp_path / "z")
    paths = [zoo.path / e.file for e in zoo.entries]
    data = bytearray(paths[0].read_bytes())
    data[-1] ^= 1
    paths[0].write_bytes(data)
    paths[1].write_bytes(paths[1].read_bytes()[:-10])
    paths[2].unlink()
    problems = zoo.verify()
    assert len(problems) == 3
    assert all(p.name in problem for p, problem in zip(paths, problems, strict=False))
    for k in range(3):
        with pytest.raises(ParamgenError, match=paths[k].name):
            zoo[k]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda meta: [], r"zoo.json: the content is \[\], expected an object"),
        (lambda meta: {k: v for k, v in meta.items() if k != "spec"}, "zoo.json: the content has no field 'spec'"),
        (lambda meta: {**meta, "entries": [{"name": "x"}]}, r"zoo.json: entries\[0\] has no field 'file'"),
    ],
)
def test_what_is_no_description_of_a_zoo_is_named(tmp_path, damage, message):
    path = write_zoo(tmp_path / "z").path / "zoo.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ParamgenError, match=message):
        Zoo(path.parent)


def test_newer_format_is_refused(tmp_path):
    zoo = write_zoo(tmp_path / "z")
    meta = json.loads((zoo.path / "zoo.json").read_text())
    (zoo.path / "zoo.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(ParamgenError, match="format is 99, expected 2"):
        Zoo(zoo.path)


def test_zoo_is_found_by_name(tmp_path, monkeypatch):
    write_zoo(tmp_path / "zoos" / "digits")
    monkeypatch.setenv("PARAMGEN_ZOO", str(tmp_path / "zoos"))
    assert find_zoo("digits") == tmp_path / "zoos" / "digits"
    with pytest.raises(ParamgenError, match="Did you mean 'digits'"):
        find_zoo("digit")


def test_atomic_write_replaces_whole_files(tmp_path):
    path = tmp_path / "a" / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def entry_with(**fields):
    return lambda meta: {**meta, "entries": [{**meta["entries"][0], **fields}, *meta["entries"][1:]]}


def tensor_with(**fields):
    spec = lambda meta: {**meta["spec"], "tensors": [{**meta["spec"]["tensors"][0], **fields}]}  # noqa: E731
    return lambda meta: {**meta, "spec": {**spec(meta), "aliases": {}}}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (entry_with(run="a"), r"zoo.json: entries\[0\].run is 'a', expected an integer"),
        (entry_with(step=True), r"zoo.json: entries\[0\].step is True, expected an integer"),
        (entry_with(run=-1), r"zoo.json: entries\[0\].run is -1, expected 0 or more"),
        (entry_with(split="test"), r"entries\[0\].split is 'test', expected 'train', 'val', 'heldout'"),
        (entry_with(sha256="x"), r"entries\[0\].sha256 is 'x', expected the 64 hexadecimal digits"),
        (entry_with(colour=1), r"entries\[0\] has an unknown field 'colour'"),
        (entry_with(file="../a"), r"entries\[0\].file is '../a', expected a path inside of the folder"),
        (entry_with(file="/dev/zero"), r"entries\[0\].file is '/dev/zero', expected a path inside of the folder"),
        (entry_with(scores={"val": {"score": "a"}}), r"entries\[0\].scores.val.score is 'a', expected a number or null"),
        (lambda m: {**m, "entries": [{**e, "condition": [1] * i} for i, e in enumerate(m["entries"])]}, "condition has 1 number"),
        (lambda m: {**m, "entries": []}, "entries has 0 items, expected at least 1"),
        (lambda m: entry_with(file="none")({**m, "entries": m["entries"][:1]}), "none of the files of its 1 networks exists"),
        (tensor_with(shape=[1 << 40]), "spec has 1,099,511,627,776 parameters, more than .* has bytes"),
        (tensor_with(dtype="int16"), r"spec.tensors\[0\].dtype is 'int16', expected 'float32'"),
        (tensor_with(shape=3), r"spec.tensors\[0\].shape is 3, expected a list"),
        (lambda m: {**m, "spec": {**m["spec"], "aliases": {"x": "y"}}}, "spec.aliases names 'y', which is not among"),
        (lambda m: {**m, "spec": {**m["spec"], "tensors": 2 * m["spec"]["tensors"]}}, "names the tensor 'scale' twice"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_is_named(tmp_path, damage, message):
    path = write_zoo(tmp_path / "z").path / "zoo.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ParamgenError, match=message):
        Zoo(path.parent)


def test_networks_are_not_read_through_links_that_leave_the_zoo(tmp_path):
    zoo = write_zoo(tmp_path / "z")
    (zoo.path / zoo.entries[2].file).rename(tmp_path / "elsewhere")
    (zoo.path / zoo.entries[2].file).symlink_to(tmp_path / "elsewhere")
    assert len(zoo.verify()) == 1
    with pytest.raises(ParamgenError, match="links that lead out of it"):
        zoo[2]


def test_a_damaged_base_is_found(tmp_path):
    zoo = write_zoo(tmp_path / "z")
    (zoo.path / "base.safetensors").write_bytes(b"")
    assert ["base.safetensors" in problem for problem in zoo.verify()] == [True]


def test_a_loss_that_is_not_finite_is_recorded_as_unknown(tmp_path):
    writer = writer_at(tmp_path / "z")
    for step, loss in enumerate((float("nan"), float("inf"), 0.5)):
        writer.add(vary(TinyNet(), step), run=0, step=step, seed=0, scores={"val": {"score": 0.1, "loss": loss}})
    assert writer_at(tmp_path / "z").done == {(0, 0), (0, 1), (0, 2)}
    assert [entry.scores["val"]["loss"] for entry in writer.close().entries] == [None, None, 0.5]


def test_a_zoo_is_a_sequence(tiny_zoo):
    assert len(tiny_zoo[1:]) == len(tiny_zoo) - 1
    assert all(torch.equal(a, b) for a, b in zip(tiny_zoo[-1].values(), tiny_zoo[::-1][0].values(), strict=True))
