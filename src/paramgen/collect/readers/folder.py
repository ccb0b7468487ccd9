"""A folder of checkpoints: files, and folders that hold one network each."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paramgen.collect.readers.adapters import adapter_config, check_alike
from paramgen.collect.readers.conditions import UNNAMED
from paramgen.collect.readers.found import Found, Layout, Reading
from paramgen.collect.readers.pattern import PathPattern, described
from paramgen.collect.readers.tables import read_table, read_vectors
from paramgen.collect.readers.units import ADAPTER_FOLDER, Stored, stored_as
from paramgen.core.counting import some
from paramgen.core.weight_files import SUFFIXES, has_weight_suffix, is_aside, is_marked, natural_order
from paramgen.errors import ParamgenError

_TRAINER = re.compile(r"checkpoint-\d+")  # folders of Hugging Face's Trainer
_STEPS = re.compile(r".*(checkpoint|ckpt|step|iter|epoch|ep)s?[-_=]*\d+.*", re.IGNORECASE)


class Folder(Layout):
    """Files and folders of one network each: those directly in the folder, or at the paths that a pattern or a table names."""

    name = "folder"
    what = f"a folder of {', '.join(SUFFIXES)} files, or of folders with one network each"

    def __init__(self, source: Path, reading: Reading) -> None:
        super().__init__(source, reading)
        self._units: dict[Path, Stored] = {}
        self._adapter: dict[str, Any] = {}  # configuration of the first

    @staticmethod
    def recognises(source: Path) -> bool:
        """Any folder."""
        return source.is_dir()

    def find(self) -> Iterator[Found]:
        """The networks in natural order of their paths, those marked as last or best after the others."""
        if self.reading.table is not None:
            yield from self._listed(self.reading.table)
            return
        pattern = None if self.reading.pattern is None else PathPattern(self.reading.pattern)
        paths = sorted(self._candidates(deep=pattern is not None), key=lambda path: natural_order(self._relative(path)))
        if pattern is not None:
            yield from self._matching(pattern, paths)
            return
        if not paths:
            raise ParamgenError(self._nothing())
        trainer = any(_TRAINER.fullmatch(path.name) for path in paths)
        marked = {path: is_marked(path) or (trainer and not _TRAINER.fullmatch(path.name)) for path in paths}
        for path in sorted(paths, key=marked.__getitem__):
            yield Found(self._relative(path), path, final=marked[path], run=self._run(path))

    def read(self, found: Found) -> Mapping[str, Any]:
        """The state dict of one file or folder; adapters must be of one kind."""
        unit = self._unit(found.path)
        if unit is ADAPTER_FOLDER:
            config = adapter_config(found.path)
            self._adapter = self._adapter or config
            check_alike(config, self._adapter, str(found.path))
        return unit.read(found.path, self.reading.key)

    def wrapped(self, found: Found) -> bool:
        """As its kind of file or folder says."""
        return self._unit(found.path).wrapped

    def recipe(self) -> dict[str, Any]:
        """The configuration of adapters, with which peft can load what is generated."""
        return {"adapter": self._adapter} if self._adapter else {}

    def _run(self, path: Path) -> str | None:
        """Folders of one network are runs of their own, except for those whose name says that they are steps of one training."""
        return self._relative(path) if path.is_dir() and not _STEPS.fullmatch(path.name) else None

    def _unit(self, path: Path) -> Stored:
        unit = self._units.get(path) or stored_as(path)
        if unit is None:
            raise ParamgenError(
                f"cannot read {path}: it is neither a {', '.join(SUFFIXES)} file nor a folder with a network"
            )
        self._units[path] = unit
        return unit

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.source).as_posix()

    def _candidates(self, deep: bool) -> list[Path]:
        """Paths of networks; hidden files and the state of optimizers are left aside and noted."""
        found, hidden, aside = list[Path](), list[str](), list[str]()
        waiting = [self.source]
        while waiting:
            for path in sorted(waiting.pop().iterdir()):
                folder = path.is_dir()
                if path.name.startswith("."):
                    hidden += [self._relative(path)] if has_weight_suffix(path) and not folder else []
                elif has_weight_suffix(path) and is_aside(path) and not folder:
                    aside.append(self._relative(path))
                elif (unit := stored_as(path)) is not None:
                    self._units[path] = unit
                    found.append(path)
                if folder and deep and not path.name.startswith("."):
                    waiting.append(path)
        self.notes += [f"skipped hidden files: {some(hidden)}"] if hidden else []
        self.notes += [f"left aside, as they hold no network: {some(aside)}"] if aside else []
        return found

    def _matching(self, pattern: PathPattern, paths: list[Path]) -> Iterator[Found]:
        taken: list[Path] = []
        others: list[str] = []
        for path in paths:
            name = self._relative(path)
            values = pattern.match(name)
            if values is None:
                others.append(name)
            elif not any(folder in path.parents for folder in taken):  # part of a network that is taken already
                taken.append(path)
                yield described(Found(name, path, final=is_marked(path)), values, name)
        others = [name for name in others if not any((self.source / name).is_relative_to(path) for path in taken)]
        if not taken:
            example = f", for example {others[0]!r}" if others else ""
            raise ParamgenError(
                f"--pattern {pattern.text!r} matches none of {len(others)} networks in {self.source}{example}"
            )
        self.notes += [f"not matched by the pattern: {some(others)}"] if others else []

    def _listed(self, table: str) -> Iterator[Found]:
        if table.endswith(".safetensors"):
            for name, vector in read_vectors(table).items():
                yield Found(name, self._named(name, table), run=name, condition={UNNAMED: vector})
            return
        for name, row in read_table(table).items():
            path = self._named(name, table)
            yield described(Found(name, path, final=is_marked(path)), row, f"{table}, {name}")

    def _named(self, name: str, table: str) -> Path:
        if not (path := self.source / name).exists():
            raise ParamgenError(f"{table} names {name!r}, which is not in {self.source}")
        return path

    def _nothing(self) -> str:
        below = self._candidates(deep=True)
        hint = ""
        if below:
            hint = (
                f"; {len(below)} are in folders below it: take them with --pattern, for example --pattern "
                f"'{_example(self._relative(below[0]))}' for {self._relative(below[0])!r}"
            )
        return f"no {', '.join(SUFFIXES)} file in {str(self.source)!r}{hint}"


def _example(path: str) -> str:
    """A pattern that a path fits."""
    *folders, name = path.split("/")
    return "/".join(
        [*("{run}" if i == 0 else "*" for i, _ in enumerate(folders)), re.sub(r"\d+", "{step}", name, count=1)]
    )
