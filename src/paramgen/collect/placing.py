"""Which run, step and split each imported network has."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from paramgen.collect.readers.found import Found
from paramgen.core.weight_files import natural_order, steps_from_names
from paramgen.core.zoo import Split
from paramgen.errors import ParamgenError


class Placed(NamedTuple):
    """A network and its place in the zoo."""

    found: Found
    run: int
    step: int
    split: Split


class Places(NamedTuple):
    """All networks with their places, and the names of the runs."""

    networks: list[Placed]
    runs: dict[int, str]


def place(founds: Sequence[Found], one_run: bool, val_networks: int, heldout_networks: int) -> Places:
    """Give each network a run, a step and a split.

    Args:
        founds: The networks, in order.
        one_run: Networks of which no run and no condition is known are steps of one run; otherwise each is a run.
        val_networks: Number of networks for validation: whole runs, before the held-out ones.
        heldout_networks: Number of held-out networks: the last runs.

    Raises:
        ParamgenError: A step below 0, or two networks with the same run and step; numbers that split a run, or leave nothing to learn
            from.
    """
    names = [_run_name(found, i, one_run) for i, found in enumerate(founds)]
    numbers = _numbered(list(dict.fromkeys(names)))
    steps = _steps(founds, names)
    rows = [Placed(found, numbers[name], step, "train") for found, name, step in zip(founds, names, steps, strict=True)]
    rows.sort(key=lambda row: row.run)  # stable: steps stay in order
    _check_steps(rows)
    splits = _splits(rows, val_networks, heldout_networks)
    placed = [row._replace(split=splits[row.run]) for row in rows]
    if not any(row.split == "train" for row in placed):
        given = f"val_networks {val_networks} and heldout_networks {heldout_networks}"
        raise ParamgenError(f"{given} leave no network to learn from, of {len(founds)}")
    known = any(found.run is not None or found.condition for found in founds)
    return Places(placed, {number: name for name, number in numbers.items()} if known else {})


def _run_name(found: Found, index: int, one_run: bool) -> str:
    if found.run is not None:
        return found.run
    if found.condition:
        words = [f"{name}={value}" for name, value in found.condition.items() if not isinstance(value, tuple)]
        return ", ".join(words) or found.name
    return "0" if one_run else str(index)


def _numbered(names: Sequence[str]) -> dict[str, int]:
    """The number of each run: that in its name where all names are numbers, else its place in natural order."""
    if all(name.isdecimal() for name in names) and len({int(name) for name in names}) == len(names):
        return {name: int(name) for name in names}
    return {name: i for i, name in enumerate(sorted(names, key=natural_order))}


def _steps(founds: Sequence[Found], names: Sequence[str]) -> list[int]:
    steps = [0] * len(founds)
    order = sorted(range(len(founds)), key=lambda i: names[i])
    for _, group in groupby(order, key=lambda i: names[i]):
        places = list(group)
        known = [step for i in places if (step := founds[i].step) is not None]
        if len(known) < len(places):
            paths = [founds[i].path for i in places]
            known = steps_from_names(paths, [founds[i].path for i in places if founds[i].final])
            if len({*paths}) < len(paths):  # networks in one file
                known = [*range(len(places))]
        for i, step in zip(places, known, strict=True):
            steps[i] = step
    return steps


def _check_steps(rows: Sequence[Placed]) -> None:
    """Refuse steps below 0, and two networks of one run with one step."""
    seen: dict[tuple[int, int], str] = {}
    for row in rows:
        if row.step < 0:
            raise ParamgenError(f"{row.found.name}: step is {row.step}, expected 0 or more")
        first = seen.setdefault((row.run, row.step), row.found.name)
        if first != row.found.name:
            raise ParamgenError(
                f"{first} and {row.found.name} are both step {row.step} of run {row.run}; "
                "name what they differ in, with {run} or {step} in --pattern"
            )


def _splits(rows: Sequence[Placed], val_networks: int, heldout_networks: int) -> Mapping[int, Split]:
    """The split of each run."""
    sizes: dict[int, int] = {}
    for row in rows:
        sizes[row.run] = sizes.get(row.run, 0) + 1
    recorded = {row.run: row.found.split for row in rows if row.found.split is not None}
    splits: dict[int, Split] = {run: recorded.get(run) or "train" for run in sizes}
    if not (val_networks or heldout_networks):
        return splits
    if recorded:
        raise ParamgenError("the source records splits; remove val_networks and heldout_networks")
    if len(sizes) == 1 and len(rows) > 1:
        raise ParamgenError("val_networks and heldout_networks need several runs (one_run=false): splits are by run")
    waiting = sorted(sizes, reverse=True)
    wanted: tuple[tuple[Split, int], ...] = (("heldout", heldout_networks), ("val", val_networks))
    for split, number in wanted:
        taken = 0
        while taken < number and waiting:
            run = waiting.pop(0)
            splits[run] = split
            taken += sizes[run]
        if taken > number:
            raise ParamgenError(
                f"{split}_networks is {number}, expected whole runs: {taken - sizes[run]} or {taken} networks of the last runs"
            )
    return splits
