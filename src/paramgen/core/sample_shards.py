"""Putting the shards of a folder of generated networks together."""

from itertools import chain
from pathlib import Path
from typing import Any

from paramgen.core.counting import counted
from paramgen.core.io import inside, link_or_copy, read_json, sha256, sync_folder, write_json
from paramgen.core.locks import locked
from paramgen.core.sample_writer import begin_samples, file_name, refuse_samples
from paramgen.core.samples import INDEX, PARTIAL
from paramgen.core.shards import complete_merge, complete_shards, delete_shards
from paramgen.errors import ParamgenError

_OF_EACH = ("networks", "command", "sample_seconds")  # what samples.json of a shard says of itself alone


def merge_samples(out: Path, command: str | None = None, overwrite: bool = False) -> Path:
    """Put the shards of samples together: the folder that one process would have written. To resume, rerun the command.

    Networks are linked where the file system permits it, otherwise copied; the shards are deleted at the end.

    Args:
        out: The folder that was given to each of them.
        command: What is recorded as the command.
        overwrite: Replace samples that are already there.

    Raises:
        ParamgenError: A shard is missing, incomplete, damaged or drawn with other settings; it is named.
    """
    if complete_merge(out, INDEX):
        return out
    folders = complete_shards(out, INDEX)
    saved = [read_json(folder / INDEX, "samples") for folder in folders]
    for folder, other in zip(folders, saved, strict=True):
        _check_alike(folders[0], saved[0], folder, other)
    refuse_samples(out, overwrite)
    files = [
        inside(folder, entry["file"])
        for folder, index in zip(folders, saved, strict=True)
        for entry in index["networks"]
    ]
    entries = [*chain.from_iterable(index["networks"] for index in saved)]
    rows = [entry.get("row") for entry in entries]
    if sorted(rows, key=lambda row: -1 if row is None else row) != list(range(len(rows))):
        raise ParamgenError(f"{out}: the shards do not hold each of {len(rows)} networks once; sample them again")
    with locked(out):
        begin_samples(out, len(entries))
        listed = [_take(file, entry, out, len(entries)) for file, entry in zip(files, entries, strict=True)]
        sync_folder(out)  # the index is the last to appear
        seconds = [index.get("sample_seconds") for index in saved]
        own = {"command": command, "sample_seconds": None if None in seconds else sum(seconds)}
        write_json(out / INDEX, {**saved[0], **own, "networks": sorted(listed, key=lambda entry: entry["file"])})
        (out / PARTIAL).unlink()
        delete_shards(out)
    print(f"{counted(len(listed), 'network')} of {counted(len(folders), 'shard')} in {out}")
    return out


def _check_alike(first: Path, expected: dict[str, Any], folder: Path, given: dict[str, Any]) -> None:
    """Refuse shards that were not drawn alike; the first differing setting is named."""
    for key in sorted({*expected, *given} - {*_OF_EACH}):
        if expected.get(key) != given.get(key):
            raise ParamgenError(
                f"{folder} has {key}={given.get(key)!r}, {first} has {key}={expected.get(key)!r}; sample all shards with the same settings"
            )


def _take(file: Path, entry: dict[str, Any], out: Path, n: int) -> dict[str, Any]:
    """Link a network to its place among all n; its entry there."""
    if not file.is_file() or sha256(file) != entry["sha256"]:
        raise ParamgenError(f"{file}: missing, modified or truncated; sample that shard again")
    name = file_name(entry["row"], n)
    link_or_copy(file, out / name)
    return {**{key: value for key, value in entry.items() if key != "row"}, "file": name}
