"""Zoos of implicit fields (DWS, NFN): one SIREN per picture, and a ``*splits.json`` with paths and labels per split."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from paramgen.collect.readers.found import Found, Layout, below
from paramgen.collect.readers.pattern import SPLIT_WORDS
from paramgen.core.io import read_json
from paramgen.core.weight_files import read_state_dict
from paramgen.errors import ParamgenError, shown


class Splits(Layout):
    """Files that a ``*splits.json`` lists."""

    name = "splits"
    what = "a folder with one *splits.json: {split: {path: […], label: […]}}"

    @staticmethod
    def recognises(source: Path) -> bool:
        """Whether it is, or holds, one such file."""
        return _index(source) is not None

    def find(self) -> Iterator[Found]:
        """The files of each split; test counts as held out, and a label is the condition."""
        index = _index(self.source)
        assert index is not None
        content = read_json(index)
        if not isinstance(content, dict) or not content:
            raise ParamgenError(f"{index} holds {shown(content)}, expected splits")
        for split, lists in content.items():
            paths, labels = (lists.get(key, []) for key in ("path", "label")) if isinstance(lists, dict) else ([], [])
            if split not in SPLIT_WORDS or not paths or len(labels) not in (0, len(paths)):
                raise ParamgenError(
                    f"{index}: {split!r} is {shown(lists)}, expected the lists path and label of one length; "
                    "--layout folder ignores this file"
                )
            for i, name in enumerate(paths):
                path = _located(index.parent, str(name))
                yield Found(
                    path.relative_to(index.parent).as_posix(),
                    path,
                    run=_run(path.relative_to(index.parent)),
                    step=0,
                    split=SPLIT_WORDS[split],
                    condition={"label": str(labels[i])} if labels else {},
                )

    def read(self, found: Found) -> Mapping[str, Any]:
        """One file."""
        return read_state_dict(found.path, self.reading.key)


def _index(source: Path) -> Path | None:
    if source.is_file():
        return source if source.name.endswith("splits.json") else None
    found = sorted(source.glob("*splits.json"))
    return found[0] if len(found) == 1 else None


def _located(folder: Path, name: str) -> Path:
    """A file that the index names by a path of its author's computer: the longest end of the path that exists here."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".", "..")]
    for start in range(len(parts)):
        path = below(folder, "/".join(parts[start:]))
        if path.is_file():
            return path
    raise ParamgenError(f"{folder} lacks {name!r}, which its splits name")


def _run(path: Path) -> str:
    """A picture's folder, or its file where the folder has many."""
    return path.parts[-3] if len(path.parts) > 2 and path.parts[-2] == "checkpoints" else path.as_posix()
