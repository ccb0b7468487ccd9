"""What is read from disk: JSON that fits its schema, safetensors whose header fits the file, paths that stay in their folder."""

import json
import os
import random
import struct
from hashlib import sha256

import jsonschema
import pytest
import torch
from safetensors.torch import save, save_file

from examples import example
from fuzz import mutate_value
from paramgen.core.io import inside, read_json, read_tensors, write_tensors
from paramgen.core.io import sha256 as checksum
from paramgen.core.schema import KEYWORDS, check, load_schema
from paramgen.core.stored import StoredTensors
from paramgen.errors import ParamgenError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", r"x.json is not valid JSON: Expecting .* line 1"),
        (b'{"a": "\xff"}', r"x.json is not valid JSON: byte 7 is not UTF-8"),
        (b'{"a": 1, "a": 2}', r"x.json is not valid JSON: the key 'a' occurs twice"),
        (b"[" * 100_000, r"x.json is not valid JSON: nested deeper than 64 levels"),
        (b"[" * 65 + b"]" * 65, r"x.json: the content is nested deeper than 64 levels"),
        (b'{"a": [{"b": NaN}]}', r"x.json: a\[0\].b is nan, expected a finite number"),
        (b'{"a": [1, -1e999]}', r"x.json: a\[1\] is -inf, expected a finite number"),
        (b'{"a": ' + b"9" * 30 + b"}", r"x.json: a is an integer of 30 digits, expected one that fits 64 bits"),
        (b'{"a": ' + b"9" * 9999 + b"}", r"x.json is not valid JSON: Exceeds the limit"),
        (b'{"a": "\\ud800"}', r"x.json: a holds half of a surrogate pair"),
    ],
)
def test_what_is_no_strict_json_is_named(tmp_path, text, message):
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(ParamgenError, match=message):
        read_json(tmp_path / "x.json")


def damaged(change):
    """A safetensors file of two tensors whose header is changed."""

    def write(path):
        save_file({"a": torch.ones(2, 3), "b": torch.arange(4.0)}, path)
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        text = json.dumps(change(header) or header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return write


def link_to_pipe(path):
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


@pytest.mark.parametrize("read", [read_tensors, StoredTensors])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "it is a directory"),
        (os.mkfifo, "it is a device, pipe or socket"),
        (link_to_pipe, "it is a device, pipe or socket"),
        (lambda p: p.symlink_to("/dev/zero"), "it is a device, pipe or socket"),
        (lambda p: p.touch(), "truncated or not safetensors"),
        (lambda p: p.write_bytes(struct.pack("<Q", 1 << 60) + b"{}"), r"a header of 1,152,921,504,606,846,976 bytes in 10"),
        (lambda p: p.write_bytes(struct.pack("<Q", 2) + b"[]"), "the header of .*: the content is .*, expected an object"),
        (damaged(lambda h: h["a"].update(shape=[2, 4])), r"tensor 'a' of shape \[2, 4\] and dtype F32 does not fit its bytes"),
        (damaged(lambda h: h["a"].update(shape=[1 << 40, 1 << 40])), "tensor 'a' of shape .* does not fit its bytes"),
        (damaged(lambda h: h["b"].update(data_offsets=[8, 24])), "tensor 'b' .* does not fit its bytes"),
        (damaged(lambda h: h["b"].update(data_offsets=[24, 16])), "tensor 'b' .* does not fit its bytes"),
        (damaged(lambda h: h["b"].update(dtype="F128")), r"b.dtype is 'F128', expected 'BOOL'"),
        (damaged(lambda h: h["b"].update(shape=-1)), r"b.shape is -1, expected a list"),
        (damaged(lambda h: h.pop("b") and None), "truncated or modified"),
    ],
)  # fmt: skip
def test_safetensors_that_do_not_fit_their_header_are_named(tmp_path, read, make, message):
    make(tmp_path / "x.safetensors")
    with pytest.raises(ParamgenError, match=message) as caught:
        read(tmp_path / "x.safetensors")
    assert str(tmp_path / "x.safetensors") in str(caught.value)


def test_tensors_of_every_dtype_and_place_are_read_alike(tmp_path):
    tensors = {f"{n}": torch.arange(n).to(dtype) for n, dtype in enumerate([torch.bool, torch.int8, torch.complex64])}
    tensors |= {"empty": torch.zeros(0, 3), "scalar": torch.tensor(2.0, dtype=torch.bfloat16)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    path.write_bytes(
        struct.pack("<Q", length + 1) + data[8 : 8 + length] + b" " + data[8 + length :]
    )  # nothing aligned
    for found in (read_tensors(path), StoredTensors(path)):
        assert found.keys() == tensors.keys()
        assert all(
            torch.equal(found[name], tensors[name]) and found[name].dtype == t.dtype for name, t in tensors.items()
        )


def test_tensors_are_written_byte_for_byte_as_the_library_does(tmp_path):
    kinds = [
        getattr(torch, name)
        for name in ("bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    ]
    kinds += [
        torch.float8_e5m2,
        torch.float8_e4m3fn,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.complex64,
        torch.float64,
    ]
    tensors = {f'{"zyx"[i % 3]}{i} \u00fc"': torch.arange(i + 1).to(kind) for i, kind in enumerate(kinds)}
    tensors |= {"scalar": torch.tensor(2.0), "empty": torch.zeros(0, 3), "turned": torch.arange(6.0).view(2, 3).T}
    shared = torch.arange(4.0)
    digest = write_tensors(tmp_path / "x", {**tensors, "one": shared, "two": shared})
    expected = save({name: t.contiguous() for name, t in tensors.items()} | {"one": shared, "two": shared.clone()})
    assert (tmp_path / "x").read_bytes() == expected
    assert digest == sha256(expected).hexdigest()


def test_a_file_that_became_shorter_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.randn(50)}, path)
    stored = StoredTensors(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ParamgenError, match=r"x\.safetensors: the file became shorter"):
        stored["a"]
    path.unlink()
    with pytest.raises(ParamgenError, match=r"x\.safetensors: no such file"):
        stored["a"]
    with pytest.raises(ParamgenError, match=r"cannot read .*x\.safetensors: no such file"):
        checksum(path)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "out", "out/x", "up", "a\0b", "", ".", "loop", "n" * 5000]
)
def test_paths_in_data_stay_in_their_folder(tmp_path, name):
    folder = tmp_path / "folder"
    (folder / "a").mkdir(parents=True)
    (folder / "out").symlink_to(tmp_path)
    (folder / "up").symlink_to("../x")
    (folder / "loop").symlink_to("loop")
    with pytest.raises(ParamgenError, match="cannot read"):
        inside(folder, name)


def test_links_within_a_folder_are_followed(tmp_path):
    folder = tmp_path / "folder"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "x").write_text("1")
    (folder / "b").symlink_to("a/x")
    (tmp_path / "other").symlink_to(folder)
    assert inside(tmp_path / "other", "b").read_text() == "1"


@pytest.mark.parametrize("name", ["results", "comparison", "zoo", "safetensors"])
def test_schemas_mean_what_the_reference_implementation_says(name):
    reference, rng = jsonschema.Draft202012Validator(load_schema(name)), random.Random(0)
    values = (None, True, 0, 1, -1, 2**40, "", "x", "../x", "a" * 64, [], {}, [[]], {"a": 1}, 0.5, -0.5)
    start, fits = example(name), 0
    if name == "safetensors":
        start = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {"a": "b"}}
    for _ in range(300):
        value = mutate_value(start, rng, values)
        try:
            check(value, name, "x")
        except ParamgenError:
            assert not reference.is_valid(value), value
        else:
            assert reference.is_valid(value), value
            fits += 1
    assert 0 < fits < 300


@pytest.mark.parametrize("name", ["results", "comparison", "zoo", "samples", "safetensors", "checkpoint", "trusted"])
def test_schemas_use_what_is_checked_and_no_more(name):
    text = {"$schema", "title", "description", "$defs"}

    def rules(schema):
        yield from schema.keys() - text
        for keyword, rule in schema.items():
            if keyword in ("properties", "$defs"):
                inner = rule.values()
            elif keyword in ("allOf", "anyOf", "oneOf", "prefixItems"):
                inner = rule
            else:
                inner = [rule] if keyword in ("items", "additionalProperties") and isinstance(rule, dict) else []
            for part in inner:
                yield from rules(part)

    assert set(rules(load_schema(name))) <= KEYWORDS.keys()
    if name not in ("samples", "checkpoint"):
        check(example(name), name, "x")
