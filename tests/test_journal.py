"""The journal of an unfinished zoo: damage costs the networks that it hit, and no others."""

import json
import os
from contextlib import suppress

import pytest
import torch

from conftest import TinyNet, vary, write_zoo
from paramgen.core.params import ParamSpec
from paramgen.core.zoo_writer import JOURNAL, ZooWriter
from paramgen.errors import ParamgenError

GARBAGE = {
    "a line cut short": b'{"file": "run0000_st',
    "zeros": bytes(4096),
    "zeros and a line end": bytes(100) + b"\n",
    "random bytes": bytes(range(255, 0, -1)),
    "no UTF-8": b'{"file": "\xff\xfe"}\n',
    "a list": b"[1, 2]\n",
    "a number of a million digits": b'{"run": ' + b"9" * 1_000_000 + b"}\n",
    "nesting": b"[" * 100_000 + b"\n",
    "other fields": b'{"name": "x"}\n',
    "a field of another type": b'{"file": "run0000_step0000009.safetensors", "run": "0", "step": 9, "seed": 0}\n',
    "a file elsewhere": b'{"file": "../x.safetensors", "run": 0, "step": 9, "seed": 0}\n',
    "a file that is not there": b'{"file": "run0000_step0000009.safetensors", "run": 0, "step": 9, "seed": 0}\n',
    "empty lines": b"\n\n",
}


def writer_at(path):
    return ZooWriter(
        path, ParamSpec.of(TinyNet()), {"steps": torch.tensor(7)}, {"class_path": "none"}, {"made": "here"}
    )


def unfinished(path, networks=4):
    """A zoo of which `networks` are written; its journal."""
    writer = writer_at(path)
    for step in range(networks):
        writer.add(vary(TinyNet(), step), run=0, step=step, seed=0)
    return path / JOURNAL


def finished(path, networks=4):
    """What is left, after the rest has been made again."""
    writer = writer_at(path)
    before = {step for _, step in writer.done}
    for step in {*range(networks)} - before:
        writer.add(vary(TinyNet(), step), run=0, step=step, seed=0)
    assert writer_at(path).done == {(0, step) for step in range(networks)}  # what was appended can be read
    zoo = writer.close()
    assert zoo.verify() == []
    assert [entry.step for entry in zoo.entries] == [*range(networks)]
    return before


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_after_the_last_entry_costs_none(tmp_path, kind):
    journal = unfinished(tmp_path)
    journal.write_bytes(journal.read_bytes() + GARBAGE[kind])
    assert finished(tmp_path) == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_in_place_of_an_entry_costs_it_alone(tmp_path, kind):
    journal = unfinished(tmp_path)
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = GARBAGE[kind].removesuffix(b"\n") + b"\n"
    journal.write_bytes(b"".join(lines))
    assert finished(tmp_path) == {0, 2, 3}


def test_random_damage_never_ends_in_a_foreign_exception(tmp_path):
    journal = unfinished(tmp_path)
    whole, generator = journal.read_bytes(), torch.Generator().manual_seed(0)
    for _ in range(200):
        damaged = bytearray(whole)
        at, length = (int(torch.randint(len(whole), (), generator=generator)) for _ in range(2))
        damaged[at : at + length % 40] = bytes(torch.randint(256, (length % 60,), generator=generator).tolist())
        journal.write_bytes(damaged)
        with suppress(ParamgenError):  # of another recipe, or without a header
            assert writer_at(tmp_path).done <= {(0, step) for step in range(4)}


def test_what_was_lost_is_said_in_one_line(tmp_path, caplog):
    journal = unfinished(tmp_path)
    journal.write_bytes(journal.read_bytes()[:-20] + bytes(40))
    writer_at(tmp_path)
    assert caplog.messages == [f"{tmp_path}: 1 damaged or missing, made again; 3 complete"]
    caplog.clear()
    writer_at(tmp_path)
    assert caplog.messages == []  # the journal was mended


@pytest.mark.parametrize("damage", ["missing", "truncated", "zeros"])
def test_an_entry_whose_network_is_missing_or_torn_is_made_again(tmp_path, damage):
    unfinished(tmp_path)
    path = tmp_path / "run0000_step0000001.safetensors"
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:-8] if damage == "truncated" else bytes(len(data)))
    assert finished(tmp_path) == {0, 2, 3}


@pytest.mark.parametrize("start", [b"", b'{"format": 2, "ta', bytes(50)])
def test_a_journal_that_was_cut_at_its_first_line_starts_again(tmp_path, start):
    journal = unfinished(tmp_path)
    journal.write_bytes(start)
    assert finished(tmp_path) == set()


def test_a_damaged_header_before_entries_is_refused_by_its_line(tmp_path):
    journal = unfinished(tmp_path)
    journal.write_bytes(bytes(9) + journal.read_bytes())
    with pytest.raises(ParamgenError, match=r"zoo\.partial\.jsonl, line 1: damaged; delete the folder"):
        writer_at(tmp_path)


@pytest.mark.parametrize("header", [{}, {"format": 2}, {"format": 2, "task": 0, "spec": 0, "recipe": 0}, {"format": 9}])
def test_a_header_of_another_kind_is_refused_by_its_line(tmp_path, header):
    (tmp_path / JOURNAL).write_text(json.dumps(header) + "\n")
    with pytest.raises(ParamgenError, match=r"zoo\.partial\.jsonl, line 1: "):
        writer_at(tmp_path)


def test_entries_reach_the_disk_after_their_networks_once_some_seconds_have_passed(tmp_path, monkeypatch):
    writer, synced, fsync = writer_at(tmp_path), [], os.fsync
    writer.add(vary(TinyNet(), 1), run=1, step=0, seed=0)  # at once
    monkeypatch.setattr("paramgen.core.zoo_writer.SECONDS_BETWEEN_SYNCS", -1)
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    writer.add(vary(TinyNet(), 0), run=0, step=0, seed=0)
    assert synced[-1] == str(tmp_path / JOURNAL)
    assert synced[-2].startswith(str(tmp_path / ".run0000_step0000000.safetensors."))  # before its entry


def test_a_finished_zoo_loses_what_a_killed_command_left(tmp_path):
    write_zoo(tmp_path)
    (tmp_path / JOURNAL).write_text("{}\n")
    (tmp_path / "rest-0-converge.safetensors").touch()
    with pytest.raises(ParamgenError, match="already holds a zoo"):
        writer_at(tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.name == JOURNAL or p.name.startswith("rest-")]
