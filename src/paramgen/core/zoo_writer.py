"""Writing a zoo network by network, so that a command that was stopped can go on.

While a zoo is being collected its entries are in ``zoo.partial.jsonl``, one line a network. ``zoo.json`` is written last.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paramgen.core.intake import check_network, first_difference
from paramgen.core.io import link_or_copy, read_tensors, sha256, sync_folder, write_json, write_tensors
from paramgen.core.journal import Journal
from paramgen.core.params import ParamSpec
from paramgen.core.remembered import remember
from paramgen.core.schema import check
from paramgen.core.stored import LazyTensors, StoredTensors
from paramgen.core.trust import foreign_classes
from paramgen.core.zoo import BASE, ZOO_FORMAT, SplitScores, Zoo, ZooEntry
from paramgen.errors import ParamgenError

JOURNAL = "zoo.partial.jsonl"
SECONDS_BETWEEN_SYNCS = 5.0  # each takes milliseconds of waiting for the disk
REST_FILE = "rest-"  # the start of the name of a file with a training's state, to resume from

_log = logging.getLogger(__name__)


class ZooWriter:
    """Writes a zoo network by network; an interrupted one resumes.

    Args:
        path: Folder to write.
        spec: Which tensors are generated.
        base: The rest of the state dict.
        task_config: How to build the task, ``{"class_path", "init_args"}``; None for networks of which the weights alone are known.
        recipe: Everything that made the networks, plain values. A half-written zoo goes on only under the same recipe.

    Raises:
        ParamgenError: The folder holds a finished zoo, or a half-written one of another recipe (the first differing key is named).
    """

    def __init__(
        self,
        path: str | Path,
        spec: ParamSpec,
        base: Mapping[str, Tensor],
        task_config: dict[str, Any] | None,
        recipe: dict[str, Any],
    ) -> None:
        self.path, self.spec = Path(path), spec
        self._journal = Journal(self.path / JOURNAL)
        self._header = {"format": ZOO_FORMAT, "task": task_config, "recipe": recipe, "spec": spec.to_dict()}
        self.entries: list[ZooEntry] = []
        check_resumable(path, task_config, recipe)
        self._base = dict(base)
        if (self.path / BASE).exists():
            self._check_base(read_tensors(self.path / BASE))
        elif base:
            write_tensors(self.path / BASE, base)
        self._synced = time.monotonic()
        self._resume()

    @property
    def done(self) -> set[tuple[int, int]]:
        """(run, step) of every network that is already there, collected anew at each call."""
        return {(entry.run, entry.step) for entry in self.entries}

    def add(
        self,
        state: Mapping[str, Tensor],
        *,
        run: int,
        step: int,
        seed: int,
        scores: SplitScores | None = None,
        **more: Any,
    ) -> ZooEntry:
        """Write one network and record it. A killed process loses nothing, a loss of power the entries of some seconds.

        Args:
            state: Its state dict, of which each tensor is asked for several times; only the generated tensors are stored, and any others
                must be those of the base.
            run: Training run.
            step: Optimizer step.
            seed: The run's seed.
            scores: As in :class:`ZooEntry`; a loss that is NaN or infinite is recorded as None, which JSON can hold.
            **more: Other fields of :class:`ZooEntry`.

        Raises:
            ParamgenError: Missing tensor, other shape, NaN or infinite values, a tensor that is neither generated nor equal in all
                networks, a full disk.
        """
        file = _file_name(run, step)
        self.check(state, run, step)
        generated = LazyTensors(self.spec.names, state.__getitem__)
        digest = write_tensors(self.path / file, generated, sync=False)
        entry = ZooEntry(file=file, run=run, step=step, seed=seed, sha256=digest, scores=_plain(scores or {}), **more)
        self._journal.append(asdict(entry))
        self.entries.append(entry)
        if time.monotonic() - self._synced > SECONDS_BETWEEN_SYNCS:
            self.sync()
        return entry

    def adopt(self, file: Path, entry: ZooEntry) -> None:
        """Take a network of another zoo of the same spec and base: a link to its file, or a copy where links are not possible.

        Args:
            file: Its file.
            entry: Its entry there. :meth:`sync` puts it on the disk.

        Raises:
            ParamgenError: The file is missing or not the one that was written, or the disk is full.
        """
        if not _is_whole(file, entry):
            raise ParamgenError(f"{file}: missing, modified or truncated; collect it again")
        link_or_copy(file, self.path / entry.file)
        self._journal.append(asdict(entry))
        self.entries.append(entry)

    def check(self, state: Mapping[str, Tensor], run: int, step: int) -> None:
        """Raise ParamgenError, as :meth:`add` does, for a network that is not one of this zoo."""
        where = f"run {run}, step {step}"
        self.spec.check(state, where)
        check_network(state, self.spec, self._base, where)

    def sync(self) -> None:
        """Make all that was added survive a loss of power too: a killed process never loses it.

        Networks are checked against their entries when a zoo goes on, so the order in which they reach the disk does not matter.
        """
        self._journal.sync()
        self._synced = time.monotonic()

    def close(self, **meta: Any) -> Zoo:
        """Write ``zoo.json`` and hand back the finished zoo.

        Args:
            **meta: More plain values for ``zoo.json``, for example ``seconds``.

        Raises:
            ParamgenError: No network was written.
        """
        if not self.entries:
            raise ParamgenError(f"{self.path}: no network was written, so there is no zoo")
        entries = [asdict(e) for e in sorted(self.entries, key=lambda e: (e.run, e.step))]
        statistics = self._statistics(entries)
        sync_folder(self.path)  # zoo.json is the last to appear
        value = {**self._header, **meta, "statistics": statistics, "entries": entries}
        digest = write_json(self.path / "zoo.json", value)
        tidy(self.path)
        remember(self.path, digest, foreign_classes(self._header["task"]))
        return Zoo(self.path)

    def _check_base(self, stored: Mapping[str, Tensor]) -> None:
        """Refuse to continue with networks that share other tensors than those that are there already."""
        if (name := first_difference(self._base, stored)) is not None:
            raise ParamgenError(
                f"{self.path} contains an incomplete zoo with another {name!r}, which its networks share; "
                "choose another folder or delete it"
            )

    def _statistics(self, entries: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
        """Mean and standard deviation of every tensor over the train split, for human readers."""
        sums, files = torch.zeros(2, len(self.spec.tensors), dtype=torch.float64), 0
        for entry in entries:
            if entry["split"] == "train":
                state = StoredTensors(self.path / entry["file"])
                values = (t.reals(state[t.name]).double() for t in self.spec.tensors)
                sums += torch.tensor([[float(v.mean()), float(v.square().mean())] for v in values], dtype=sums.dtype).T
                files += 1
        mean, square = sums / max(files, 1)
        std = (square - mean.square()).clamp_min(0).sqrt()
        return {
            t.name: {"mean": m, "std": s}
            for t, m, s in zip(self.spec.tensors, mean.tolist(), std.tolist(), strict=True)
        }

    def _resume(self) -> None:
        """Take over what an interrupted command recorded; damaged networks are dropped and made again."""
        contents = self._journal.read(_parse_entry)
        if contents is None:
            self._journal.rewrite([self._header])
            return
        if contents.header["spec"] != self._header["spec"]:
            raise ParamgenError(
                f"{self.path} contains an incomplete zoo of other tensors; choose another folder or delete it"
            )
        recorded = {(entry.run, entry.step): entry for entry in contents.records}
        self.entries = [entry for entry in recorded.values() if _is_whole(self.path / entry.file, entry)]
        lost = len(contents.damaged) + len(recorded) - len(self.entries)
        if lost:
            _log.warning("%s: %d damaged or missing, made again; %d complete", self.path, lost, len(self.entries))
            self._journal.rewrite([contents.header, *map(asdict, self.entries)])


def tidy(path: Path) -> None:
    """Delete from a finished zoo the files that were needed only to resume it."""
    for file in [path / JOURNAL, *path.glob(f"{REST_FILE}*.safetensors")]:
        file.unlink(missing_ok=True)


def check_resumable(path: str | Path, task_config: dict[str, Any] | None, recipe: dict[str, Any]) -> None:
    """Refuse a folder that a zoo of this recipe cannot be written to, before anything is trained for it.

    Raises:
        ParamgenError: It holds a finished zoo, or a half-written one of another task or recipe (the first differing key is named),
            or is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ParamgenError(f"{path} is a file; choose a folder for the zoo")
    if (path / "zoo.json").exists():
        tidy(path)  # its command may have been killed between its last two files
        raise ParamgenError(f"{path} already holds a zoo; choose another folder or delete it")
    journal = Journal(path / JOURNAL)
    if (contents := journal.read(_parse_entry)) is None:
        return
    check(contents.header, "zoo#header", f"{journal.path}, line 1")
    old = {"task": contents.header["task"], **contents.header["recipe"]}
    _require_alike(f"{path} contains an incomplete zoo", old, {"task": task_config, **recipe})


def finished_zoo(path: str | Path, task_config: dict[str, Any] | None, recipe: dict[str, Any]) -> Zoo | None:
    """The finished zoo that a folder holds, which a command need not make again; None if it holds none.

    Raises:
        ParamgenError: It is of another task or recipe (the first differing key is named).
    """
    path = Path(path)
    if not (path / "zoo.json").exists():
        return None
    tidy(path)  # its command may have been killed between its last two files
    zoo = Zoo(path)
    old = {"task": zoo.task_config, **zoo.meta["recipe"]}
    _require_alike(f"{path} already holds a zoo", old, {"task": task_config, **recipe})
    return zoo


def _require_alike(what: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse a zoo that was made with other settings."""
    new = json.loads(json.dumps(new))
    if differing := sorted(k for k in {*old, *new} if old.get(k) != new.get(k)):
        key = differing[0]
        raise ParamgenError(
            f"{what} made with {key}={old.get(key)!r}, now {key}={new.get(key)!r}; choose another folder or delete it"
        )


def _plain(scores: SplitScores) -> SplitScores:
    return {
        part: {name: value if value is not None and isfinite(value) else None for name, value in values.items()}
        for part, values in scores.items()
    }


def _is_whole(path: Path, entry: ZooEntry) -> bool:
    return path.is_file() and sha256(path) == entry.sha256


def _file_name(run: int, step: int) -> str:
    return f"run{run:04d}_step{step:07d}.safetensors"


def _parse_entry(value: dict[str, Any]) -> ZooEntry:
    """An entry of a journal, whose file has the name that :class:`ZooWriter` gives it."""
    check(value, "zoo#entry", "entry")
    entry = ZooEntry(**value)
    if entry.file != _file_name(entry.run, entry.step):
        raise ValueError(f"file is {entry.file!r}, expected {_file_name(entry.run, entry.step)!r}")
    return entry
