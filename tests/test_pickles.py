"""Files of torch.save: what is read, and what is refused in one line."""

import json
import os
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path, PurePath

import numpy as np
import pytest
import torch
from torch import nn

from paramgen.core.pickles import read_pickle
from paramgen.errors import ParamgenError


def saved(path, value, **options):
    torch.save(value, path, **options)
    return path


@pytest.mark.parametrize("archive", [True, False])
def test_inert_objects_next_to_weights_are_read(tmp_path, archive):
    beside = {"args": Namespace(lr=0.1), "best": np.float64(0.75), "count": np.int32(3), "out": Path("a/b")}
    value = {"state_dict": OrderedDict(a=torch.ones(3)), **beside}
    allowed = torch.serialization.get_safe_globals()
    found = read_pickle(saved(tmp_path / "x.pt", value, _use_new_zipfile_serialization=archive))
    assert torch.equal(found["state_dict"]["a"], torch.ones(3))
    assert (found["args"], found["best"], found["count"]) == (Namespace(lr=0.1), 0.75, 3)
    assert found["out"] == PurePath("a/b")
    assert set(torch.serialization.get_safe_globals()) == set(allowed)  # nothing is allowed outside of the reader


def bomb(path):
    saved(path, {"a": torch.zeros(1 << 18)})
    with (
        zipfile.ZipFile(path) as stored,
        zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    path.with_suffix(".zip").replace(path)


def script(path):
    torch.jit.script(nn.Linear(2, 2)).save(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.touch(), "the file is empty"),
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "a directory"),
        (lambda p: os.mkfifo(p), "pipe"),
        (lambda p: p.write_bytes(b"PK\x03\x04rubbish"), "damaged or truncated archive"),
        (lambda p: p.write_bytes(b"rubbish"), "not written by torch.save"),
        (bomb, "compressed"),
        (script, "TorchScript archive"),
        (lambda p: saved(p, {"a": json.loads}), r"object of json\.loads"),
        (lambda p: saved(p, {"state_dict": {"a": torch.eye(3).to_sparse()}}), r"'state_dict.a' is sparse"),
        (lambda p: saved(p, [torch.empty(3, device="meta")]), r"'0' is without values"),
        (lambda p: saved(p, {"a": torch.zeros(1).expand(1 << 20)}), r"'a' claims 4,194,304 bytes"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_read_is_named(tmp_path, make, message):
    make(tmp_path / "x.pt")
    with pytest.raises(ParamgenError, match=message) as caught:
        read_pickle(tmp_path / "x.pt")
    assert str(tmp_path / "x.pt") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_containers_that_hold_themselves_end(tmp_path):
    value = {"a": torch.ones(2)}
    value["again"] = [value]
    assert torch.equal(read_pickle(saved(tmp_path / "x.pt", value))["a"], torch.ones(2))
