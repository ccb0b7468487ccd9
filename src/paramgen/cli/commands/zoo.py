"""``paramgen zoo info | verify | import | convert | align | prune | quantise | merge | push | pull``: what is done with zoos."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from paramgen.cli.commands.zoo_hub import pull_zoo, push_zoo
from paramgen.collect.compressing import prune, quantise
from paramgen.collect.converting import convert
from paramgen.collect.importing import import_
from paramgen.collect.merging import merge
from paramgen.collect.readers.conditions import RECORDED, condition_words
from paramgen.core.counting import counted
from paramgen.core.zoo import PARTS, Zoo
from paramgen.core.zoo_writer import ZooWriter, check_resumable
from paramgen.errors import ParamgenError, require_non_negative


def info(zoo: str) -> None:
    """Show the contents of a zoo.

    Args:
        zoo: Folder or name of a zoo.
    """
    opened = Zoo(zoo)
    console = Console()
    console.print(f"[bold]{opened.name}[/bold]  {opened.path}")
    console.print(f"task      {_task_line(opened.task_config)}")
    console.print(f"networks  {opened.splits_in_words()}")
    tensors = counted(len(opened.spec.tensors), "tensor")
    console.print(f"generated {counted(opened.spec.numel, 'parameter')} in {tensors}; {len(opened.base())} kept fixed")
    if (condition := opened.meta.get("condition", {})).get("kind") == RECORDED:
        console.print(f"condition {condition['dim']} numbers: {condition_words(condition)}", highlight=False)
    for part in PARTS:
        if (scores := opened.scores_in_words(part)) is not None:
            console.print(f"{part:10s}{opened.score.name} {scores}")
    table = Table("tensor", "shape", "kind", "dtype", "mean", "std", box=None, header_style="bold")
    for tensor in opened.spec.tensors:
        statistics = opened.meta.get("statistics", {}).get(tensor.name, {})
        numbers = [f"{statistics[key]:.4g}" if key in statistics else "" for key in ("mean", "std")]
        table.add_row(tensor.name, "x".join(map(str, tensor.shape)) or "scalar", tensor.kind, tensor.dtype, *numbers)
    console.print(table)


def verify(zoo: str) -> None:
    """Check every file of a zoo against its recorded checksum, shape and values.

    Args:
        zoo: Folder or name of a zoo.

    Raises:
        ParamgenError: A file is missing, modified, has another shape or holds NaN or inf. All such files are listed.
    """
    opened = Zoo(zoo)
    problems = opened.verify()
    if problems:
        raise ParamgenError(f"{len(problems)} of {len(opened)} networks are damaged: {'; '.join(problems)}")
    print(f"{opened.name}: {counted(len(opened), 'network')}, all files match their checksums")


def align(zoo: str, out: str, rounds: int = 4, scale: bool = True, seed: int = 0, trust: bool = False) -> None:
    """Write an aligned zoo: hidden units in a common order and scale. The functions of the networks do not change.

    Tensors next to an operation that alignment does not know are left unchanged. They are listed, also in zoo.json under `unplaced`.

    Args:
        zoo: Folder or name of a zoo.
        out: Folder of the aligned zoo.
        rounds: Rounds of matching to the running mean, after a first round that matches to one network.
        scale: Also balance the input and output norms of hidden units whose activation permits it, and choose a common basis for the
            rank of adapters and the dimensions of attention heads.
        seed: Seed that selects this first network.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Raises:
        ParamgenError: rounds below 0, none of the network's symmetries can be read from its graph, or `out` already contains a zoo.
    """
    # imported here because they bring scipy, 41 MB that the other commands do not need
    from paramgen.collect.symmetries import symmetries_of
    from paramgen.symmetry import align_with

    require_non_negative(rounds=rounds)
    opened = Zoo(zoo, trust)
    recipe = {
        "aligned_from": str(opened.path),
        "rounds": rounds,
        "scale": scale,
        "seed": seed,
        "recipe": opened.meta["recipe"],
    }
    check_resumable(out, opened.task_config, recipe)
    result = align_with(symmetries_of(opened), list(opened), rounds, seed, scale, opened.indices("train"))
    writer = ZooWriter(out, opened.spec, opened.base(), opened.task_config, recipe)
    done = writer.done
    for entry, state in zip(opened.entries, result.state_dicts, strict=True):
        if (entry.run, entry.step) not in done:
            kept = {k: v for k, v in vars(entry).items() if k not in ("file", "sha256")}
            writer.add(state, **kept)
    meta = {key: opened.meta[key] for key in ("score", "seconds", "condition") if key in opened.meta}
    writer.close(**meta, unplaced=[place._asdict() for place in result.spec.unplaced])
    before, after = result.mean_cost_before, result.mean_cost_after
    print(
        f"{counted(len(opened), 'network')} aligned, mean distance to their mean {before:.3g} before and {after:.3g} after, in {out}"
    )
    for why, places in result.spec.stopped.items():
        print(f"Not aligned: {', '.join(places)}. Reason: operation {why}.")


def _task_line(config: Mapping[str, Any] | None) -> str:
    if config is None:
        return "none (weights only)"
    arguments = ", ".join(f"{k}={v}" for k, v in config["init_args"].items() if v not in (None, {}, []))
    return f"{config['class_path'].rsplit('.', 1)[-1]}({arguments})"


COMMANDS: dict[str, Callable[..., Any]] = {
    "info": info,
    "verify": verify,
    "import": import_,
    "convert": convert,
    "align": align,
    "merge": merge,
    "push": push_zoo,
    "pull": pull_zoo,
    "prune": prune,
    "quantise": quantise,
}
