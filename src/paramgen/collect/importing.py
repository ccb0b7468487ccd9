"""``paramgen zoo import``: make a zoo of existing checkpoints."""

import logging
from pathlib import Path
from typing import Any

from torch import nn

from paramgen.collect.announce import PARTS, announce
from paramgen.collect.doubts import unscored
from paramgen.core.intake import Architecture, check_network, same_values
from paramgen.core.params import ParamSpec, StateDict, state_digest
from paramgen.core.progress import ProgressDisplay
from paramgen.core.stored import LazyTensors
from paramgen.core.subsets import select_tensors
from paramgen.core.weight_files import Listing, is_marked, list_checkpoints, read_state_dict, steps_from_names
from paramgen.core.zoo import Split, SplitScores
from paramgen.core.zoo_writer import ZooWriter, check_resumable
from paramgen.errors import ParamgenError, UnscoredError, one_line, require_non_negative
from paramgen.tasks import Task
from paramgen.tasks.score import plain_scores, without_score
from paramgen.tasks.scorer import scorer_task

_log = logging.getLogger(__name__)


def import_(
    source: str,
    out: str,
    task: Task | None = None,
    prefix: str = "",
    base: str | None = None,
    parameters: list[str] | None = None,
    one_run: bool = True,
    val_networks: int = 0,
    heldout_networks: int = 0,
    score: bool = True,
    scorer: str | None = None,
    network: str | None = None,
    lower_is_better: bool = False,
    margin: float = 0.01,
) -> None:
    """Make a zoo of existing checkpoints: a folder of .safetensors, .pt, .pth, .ckpt or .bin files.

    All files are checked before anything is written, so a failed import leaves no files. Without a task, the first
    file defines the tensors; nothing is built, run or scored.

    Args:
        source: Folder with one file per network, read in natural order of file names (8, 9, 10).
        out: Folder of the new zoo.
        task: Architecture, data and score of the networks. Default: none; only the weights are known.
        prefix: Prefix to remove from every key, for example ``model.``. Keys without it are ignored.
        base: File with the tensors that are not generated, if the other files contain only the generated ones.
        parameters: Names, globs, ``re:`` patterns or subsets to generate. Default: all.
        one_run: The files are steps of one run (all training data). Otherwise each file is a run.
        val_networks: With separate runs: number of validation networks, before the held-out ones.
        heldout_networks: With separate runs: number of held-out networks (the last ones).
        score: Record scores on the task's train and val splits.
        scorer: Instead of a task: a function of your own, ``package.module.function``, that is called with each loaded network and
            returns its score. Short for ``--task ScorerTask``, which has more options.
        network: With `scorer`: the networks' class, ``package.module.Class``, also of a module in the working folder.
        lower_is_better: With `scorer`: a lower score is better.
        margin: With `scorer`: a network is good when its score is not worse than the zoo's mean by more than this.

    Raises:
        ParamgenError: No files, a pickle with code in it, tensors that do not fit the architecture or are neither generated nor equal
            in all files, NaN or infinite values.
        UnscoredError: After the import: the scorer raised an error on some networks, which have no score.
    """
    if (short := scorer_task(scorer, network, lower_is_better, margin)) is not None:
        if task is not None:
            raise ParamgenError("give a task or a scorer, not both")
        task = short
    require_non_negative(val_networks=val_networks, heldout_networks=heldout_networks)
    if one_run and (val_networks or heldout_networks):
        raise ParamgenError("val_networks and heldout_networks need one_run=false: splits are by run")
    listing = list_checkpoints(source)
    reader = _Reader(None if task is None else task.build(), listing.files[0], parameters or ["all"], prefix, base)
    files = reader.check(listing)
    train_networks = len(files) - val_networks - heldout_networks
    if train_networks < 1:
        given = f"val_networks {val_networks} and heldout_networks {heldout_networks}"
        raise ParamgenError(f"{given} leave no network to learn from, of {len(files)}")
    recipe = {"imported_from": source, "files": [p.name for p in files], "prefix": prefix, "base": base}
    config, scored_by = None if task is None else task.config(), task if score else None
    check_resumable(out, config, recipe)
    if scored_by is not None:
        _check_runs(scored_by, {**reader.read(files[0])})
    writer = ZooWriter(out, reader.spec, reader.base, config, recipe)
    if scored_by is not None:
        announce(scored_by, {**reader.read(files[0])}, len(files) - len(writer.done))
    failed: dict[str, str] = {}
    with ProgressDisplay() as progress:
        progress.begin("import", len(files))
        for i, (path, step) in enumerate(zip(files, steps_from_names(files), strict=True)):
            progress.update(i)
            run = 0 if one_run else i
            if (run, step) in writer.done:  # written by the same command, which was interrupted
                continue
            state = reader.read(path)
            split: Split = "train" if i < train_networks else "val" if i < len(files) - heldout_networks else "heldout"
            scores = {} if scored_by is None else _scores(scored_by, {**state}, path.name, failed)
            writer.add(state, run=run, step=step, seed=0, split=split, scores=scores)
            progress.written += 1
            del state  # before the next one is read
        progress.update(len(files))
    warnings = unscored(writer.entries)
    for warning in warnings:
        _log.warning("warning: %s", warning)
    meta = {} if task is None else {"score": task.score.to_dict()}
    zoo = writer.close(**meta, **({"warnings": warnings} if warnings else {}))
    without = ", without a task" if task is None else ""
    print(f"{len(zoo)} networks of {zoo.spec.numel:,} generated parameters{without}, in {zoo.path}")
    if failed:
        raise UnscoredError(
            f"{len(failed)} of {len(zoo)} networks have no score, because the scorer raised an error: "
            f"{', '.join(failed)}. {zoo.path} is complete"
        )


class _Reader:
    """Reads files as complete state dicts of one architecture. No more than one of them is in memory at a time.

    Args:
        network: The architecture; where it is not known, it is what the first file and the base file hold.
        first: The first file.
        parameters: Patterns of what is generated.
        prefix: Removed from the front of every key.
        base: File with what is not generated.
    """

    def __init__(
        self, network: nn.Module | None, first: Path, parameters: list[str], prefix: str, base: str | None
    ) -> None:
        self.prefix = prefix
        structure: nn.Module | StateDict
        if network is None:
            shared = {} if base is None else self._tensors(base)
            found = {**shared, **self._tensors(first)}
            self.architecture = Architecture(found, first.name)
            structure = {name: found[name] for name in self.architecture.tensors}
            if not structure:
                raise ParamgenError(f"{first} holds no tensors{f' under the prefix {prefix!r}' if prefix else ''}")
        else:
            self.architecture, structure = Architecture(network), network
        self.spec = ParamSpec.of(structure, select_tensors(structure, parameters))
        self.generated = {*self.spec.names, *self.spec.aliases}
        self.rest: dict[str, Any] = {}
        if base is not None:
            lacking = self.architecture.tensors.keys() - self.generated
            self.rest = {name: value for name, value in self._tensors(base).items() if name in lacking}

    def check(self, listing: Listing) -> list[Path]:
        """Read every checkpoint of a folder; skipped and converted files are logged.

        Returns:
            The files that make the zoo, in order.
        """
        if listing.hidden:
            _log.info("skipped hidden files: %s", ", ".join(p.name for p in listing.hidden))
        if self.architecture.extra:
            _log.info(
                "extra state belongs to the architecture and is not stored: %s", ", ".join(self.architecture.extra)
            )
        kept: list[Path] = []
        first_files: dict[str, str] = {}
        for path in listing.files:
            digest = self._checked(path, first=not kept)
            if is_marked(path) and digest in first_files:
                _log.info("skipped %s: the same network as %s", path.name, first_files[digest])
                continue
            first_files.setdefault(digest, path.name)
            kept.append(path)
        return kept

    def _checked(self, path: Path, first: bool) -> str:
        """Check one file, of which the first gives the tensors that are not generated, and return the digest of its network."""
        state = self.read(path)
        if first:
            self.base = {name: state[name].clone() for name in state if name not in self.generated}
            self._say_dtypes(path)
        self.spec.check(state, str(path))
        check_network(state, self.spec, self.base, str(path))
        return state_digest(state)

    def read(self, path: Path) -> LazyTensors:
        """One file's complete state dict; each tensor is fitted to the architecture when it is asked for."""
        state = self._tensors(path)
        for name in self.rest.keys() & state.keys():
            if not same_values(state[name], self.rest[name]):
                raise ParamgenError(f"{path}: {name!r} is not generated, but differs from the one in the base file")
        missing = [name for name in self.architecture.missing(state) if name not in self.rest]
        if missing and not self.rest and not self.generated & {*missing}:
            raise ParamgenError(
                f"{path}: it holds the generated tensors, but not {missing[0]!r} ({len(missing)} missing); "
                "give a file that holds the others: --base FILE"
            )
        whole = LazyTensors([*state, *self.rest], lambda name: (self.rest if name in self.rest else state)[name])
        return self.architecture.fitted(whole, str(path))

    def _tensors(self, path: str | Path) -> LazyTensors:
        saved = read_state_dict(path)
        names = {name.removeprefix(self.prefix): name for name in saved if name.startswith(self.prefix)}
        return LazyTensors(names, lambda name: saved[names[name]])

    def _say_dtypes(self, path: Path) -> None:
        own = self.architecture.tensors
        pairs = {(t.dtype, own[n].dtype) for n, t in self._tensors(path).items() if n in own}
        for given, kept in sorted(pairs, key=str):
            if given != kept:
                _log.info("%s weights of the files are stored as %s, the network's own", given, kept)


def _check_runs(task: Task, state: StateDict) -> None:
    """Refuse a network that cannot be run on the task's data, before anything is written."""
    try:
        task.evaluate([state], "train", most=2)
    except ParamgenError:
        raise
    except Exception as error:  # the network's own code may raise anything
        raise ParamgenError(f"the network cannot be run on the task's data: {one_line(error)}") from error


def _scores(task: Task, state: StateDict, name: str, failed: dict[str, str]) -> SplitScores:
    """One network's scores by split; why it has none is logged under its name, and errors are added to `failed`."""
    results = {part: task.evaluate([state], part) for part in PARTS}
    for reason in dict.fromkeys(reason for scores in results.values() for reason in without_score(scores).values()):
        _log.warning("%s has no score: %s", name, reason)
    for scores in results.values():
        if scores.failed:
            failed[name] = scores.failed[0]
    return {part: plain_scores(scores, 0) for part, scores in results.items()}
