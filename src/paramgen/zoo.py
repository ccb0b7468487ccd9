"""A zoo: trained networks of one architecture on disk, to learn from.

``zoo.json`` says what they are; each network is one safetensors file with its generated tensors alone; ``base.safetensors``
holds once what is not generated. While a zoo is being collected its entries stand in ``zoo.partial.jsonl``, one line a network,
so that it can be resumed at any moment.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from paramgen.errors import ParamgenError
from paramgen.files import read_json, read_tensors, sha256, write_json, write_tensors
from paramgen.paths import find_zoo
from paramgen.spec import ParamSpec, StateDict

FORMAT = 1
JOURNAL = "zoo.partial.jsonl"
Split = Literal["train", "val", "heldout"]


@dataclass(frozen=True)
class Entry:
    """One network of a zoo.

    Args:
        file: Its safetensors file, relative to the zoo.
        run: Which training run it comes from. Splits are by run.
        step: Optimizer step within the run.
        seed: The run's seed.
        split: ``train`` is for generators, ``val`` for their choices, ``heldout`` for the evaluator alone.
        scores: ``{"train": {"accuracy": …, "loss": …}, "val": …}``; accuracies are fractions. The test split is the
            evaluator's and never stands here.
        parent: The network it was fine-tuned from, if any.
        task: Name of its task where the tasks of a zoo differ.
        condition: What describes its task, if anything.
        sha256: Of the file.
    """

    file: str
    run: int
    step: int
    seed: int
    split: Split = "train"
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    parent: str | None = None
    task: str | None = None
    condition: list[float] | None = None
    sha256: str = ""


class Zoo(Sequence[StateDict]):
    """Trained networks on disk; opening one reads ``zoo.json`` alone.

    Args:
        path: Its folder, or its name under ``$PARAMGEN_ZOO`` or ``./checkpoints_zoo``.

    Raises:
        ParamgenError: No such zoo, a half-written one, or a format this version does not read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = find_zoo(path)
        self.meta: dict[str, Any] = read_json(self.path / "zoo.json")
        if not isinstance(self.meta, dict) or self.meta.get("format") != FORMAT:
            given = self.meta.get("format") if isinstance(self.meta, dict) else type(self.meta).__name__
            raise ParamgenError(f"{self.path}/zoo.json has format {given!r}, expected {FORMAT}")
        self.name: str = self.path.resolve().name
        try:
            self.spec = ParamSpec.from_dict(self.meta["spec"])
            self.task_config: dict[str, Any] = self.meta["task"]
            self.entries = [Entry(**e) for e in self.meta["entries"]]
        except (KeyError, TypeError) as error:
            raise ParamgenError(f"{self.path}/zoo.json is no description of a zoo: {error}") from error
        self._read: set[int] = set()  # networks whose file was found whole

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> StateDict:  # type: ignore[override]
        """Generated tensors of one network, tied names not included.

        Raises:
            ParamgenError: The file is missing, damaged, or does not fit the spec; it is named.
        """
        path = self.path / self.entries[index].file
        state = read_tensors(path)
        self.spec.check(state, where=str(path))
        if index not in self._read:
            _check_digest(path, self.entries[index])
            self._read.add(index)
        return state

    def __iter__(self) -> Iterator[StateDict]:
        return (self[i] for i in range(len(self)))

    def indices(self, split: Split) -> list[int]:
        """Which networks belong to a split, in order."""
        return [i for i, entry in enumerate(self.entries) if entry.split == split]

    def matrix(self, indices: Sequence[int] | None = None) -> Tensor:
        """Raw weights of some networks (default: all), one row each: (n, P) float32."""
        chosen = range(len(self)) if indices is None else indices
        out = torch.empty(len(chosen), self.spec.numel)
        for row, i in zip(out, chosen, strict=True):
            row.copy_(self.spec.flatten(self[i]))
        return out  # (n, P)

    def base(self) -> StateDict:
        """The tensors that are not generated, stored once; may be empty."""
        path = self.path / "base.safetensors"
        return read_tensors(path) if path.exists() else {}

    def complete(self, generated: Mapping[str, Tensor]) -> StateDict:
        """Generated tensors with the rest: a state dict that loads with ``strict=True`` into the plain network."""
        tied = {name: generated[canonical] for name, canonical in self.spec.aliases.items()}
        return {**self.base(), **generated, **tied}

    def full(self, index: int) -> StateDict:
        """One network's complete state dict."""
        return self.complete(self[index])

    def verify(self) -> list[str]:
        """What is wrong with its files, one line each; empty when every file is whole and finite."""
        problems = []
        for entry in self.entries:
            path = self.path / entry.file
            try:
                if not path.exists():
                    raise ParamgenError(f"{path}: no such file")
                _check_digest(path, entry)
                self.spec.check(read_tensors(path), where=str(path))
            except ParamgenError as error:
                problems.append(str(error))
        return problems


class ZooWriter:
    """Writes a zoo network by network; an interrupted one goes on where it stopped.

    Args:
        path: Folder to write.
        spec: Which tensors are generated.
        base: The rest of the state dict.
        task_config: How to build the task, ``{"class_path", "init_args"}``.
        recipe: Everything that made the networks, plain values. A half-written zoo goes on only under the same recipe.

    Raises:
        ParamgenError: The folder holds a finished zoo, or a half-written one of another recipe (the first differing key is named).
    """

    def __init__(
        self,
        path: str | Path,
        spec: ParamSpec,
        base: Mapping[str, Tensor],
        task_config: dict[str, Any],
        recipe: dict[str, Any],
    ) -> None:
        self.path, self.spec = Path(path), spec
        self._journal = self.path / JOURNAL
        self._header = {"format": FORMAT, "task": task_config, "recipe": recipe, "spec": spec.to_dict()}
        self.entries: list[Entry] = []
        refuse_other(path, task_config, recipe)
        if self._journal.exists():
            self._resume()
        else:
            if base:
                write_tensors(self.path / "base.safetensors", base)
            self._append(self._header)

    @property
    def done(self) -> set[tuple[int, int]]:
        """(run, step) of every network that is already there."""
        return {(entry.run, entry.step) for entry in self.entries}

    def add(self, state: Mapping[str, Tensor], *, run: int, step: int, seed: int, **more: Any) -> Entry:
        """Write one network and record it.

        Args:
            state: Its state dict; only the generated tensors are stored.
            run: Training run.
            step: Optimizer step.
            seed: The run's seed.
            **more: Other fields of :class:`Entry`.

        Raises:
            ParamgenError: Missing tensor, other shape, NaN or infinite values, a full disk.
        """
        file = f"run{run:04d}_step{step:07d}.safetensors"
        self.spec.check(state, where=f"run {run}, step {step}")
        digest = write_tensors(self.path / file, {name: state[name] for name in self.spec.names})
        entry = Entry(file=file, run=run, step=step, seed=seed, sha256=digest, **more)
        self._append(asdict(entry))
        self.entries.append(entry)
        return entry

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
        write_json(self.path / "zoo.json", {**self._header, **meta, "statistics": statistics, "entries": entries})
        self._journal.unlink(missing_ok=True)
        return Zoo(self.path)

    def _statistics(self, entries: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
        """Mean and standard deviation of every tensor over the train split, for people to read."""
        sums, files = torch.zeros(2, len(self.spec.tensors), dtype=torch.float64), 0
        for entry in entries:
            if entry["split"] == "train":
                state = read_tensors(self.path / entry["file"])
                values = [state[t.name].double() for t in self.spec.tensors]
                sums += torch.stack([torch.stack([v.mean(), v.square().mean()]) for v in values], 1)
                files += 1
        mean, square = sums / max(files, 1)
        std = (square - mean.square()).clamp_min(0).sqrt()
        return {
            t.name: {"mean": m, "std": s}
            for t, m, s in zip(self.spec.tensors, mean.tolist(), std.tolist(), strict=True)
        }

    def _append(self, value: dict[str, Any]) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._journal.open("a") as file:
                file.write(json.dumps(value) + "\n")
        except OSError as error:
            raise ParamgenError(
                f"cannot write {self._journal}: {error.strerror}; run the same command again to go on"
            ) from error

    def _resume(self) -> None:
        header, *entries = _whole_lines(self._journal)
        if header["spec"] != self._header["spec"]:
            raise ParamgenError(
                f"{self.path} holds a half-written zoo of other tensors; choose another folder or delete it"
            )
        self.entries = [entry for e in entries if (self.path / (entry := Entry(**e)).file).exists()]


def refuse_other(path: str | Path, task_config: dict[str, Any], recipe: dict[str, Any]) -> None:
    """Refuse a folder that a zoo of this recipe cannot be written to, before anything is trained for it.

    Raises:
        ParamgenError: It holds a finished zoo, or a half-written one of another task or recipe (the first differing key is named),
            or is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ParamgenError(f"{path} is a file; choose a folder for the zoo")
    if (path / "zoo.json").exists():
        raise ParamgenError(f"{path} already holds a zoo; choose another folder or delete it")
    if not (path / JOURNAL).exists():
        return
    header = _whole_lines(path / JOURNAL)[0]
    old = {"task": header["task"], **header["recipe"]}
    new = json.loads(json.dumps({"task": task_config, **recipe}))
    if differing := sorted(k for k in {*old, *new} if old.get(k) != new.get(k)):
        key = differing[0]
        raise ParamgenError(
            f"{path} holds a half-written zoo made with {key}={old.get(key)!r}, now {key}={new.get(key)!r}; "
            "choose another folder or delete it"
        )


def _check_digest(path: Path, entry: Entry) -> None:
    if entry.sha256 and sha256(path) != entry.sha256:
        raise ParamgenError(f"{path}: altered or truncated (its sha256 is not the recorded one)")


def _whole_lines(journal: Path) -> list[dict[str, Any]]:
    """Lines of a journal; a last line cut short by a crash is cut off the file too, so that the next one starts clean."""
    text = journal.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        journal.write_text(whole)
    lines = [json.loads(line) for line in whole.splitlines()]
    if not lines:
        raise ParamgenError(f"{journal} is empty; delete the folder and collect again")
    return lines
