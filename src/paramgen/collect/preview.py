"""``paramgen zoo import --dry_run``: what would be taken, in tables."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from paramgen.collect.placing import Placed
from paramgen.core.params import ParamSpec
from paramgen.core.zoo import SplitScores

SHOWN = 20  # networks of which nothing is odd


def preview(
    places: Sequence[Placed],
    scores: Sequence[SplitScores],
    conditions: Sequence[Sequence[float]] | None,
    odd: Mapping[str, str],
    spec: ParamSpec,
    base: Mapping[str, Tensor],
) -> None:
    """Print the networks with their runs, steps and splits, those that are left out with the reason, and the tensors.

    Args:
        places: The networks that would be taken.
        scores: The recorded scores of each.
        conditions: The condition of each.
        odd: Why networks would be left out, by name.
        spec: What would be generated.
        base: What would be kept fixed.
    """
    console = Console()
    network = Column("network", overflow="fold")  # a name is shown whole
    table = Table(network, "run", "step", "split", "scores", "condition", box=None, header_style="bold")
    for i, (place, recorded) in enumerate(zip(places, scores, strict=True)):
        if i == SHOWN:
            table.add_row(f"… {len(places) - SHOWN} more")
            break
        numbers = [f"{split} {of['score']:.4g}" for split, of in recorded.items() if of.get("score") is not None]
        vector = "" if conditions is None else " ".join(f"{x:.4g}" for x in conditions[i][:8])
        more = " …" if conditions is not None and len(conditions[i]) > 8 else ""
        table.add_row(place.found.name, str(place.run), str(place.step), place.split, ", ".join(numbers), vector + more)
    console.print(table)
    if odd:
        left_out = Table(Column("left out", overflow="fold"), "why", box=None, header_style="bold")
        for name, why in odd.items():
            left_out.add_row(name, why)
        console.print(left_out)
    tensors = Table("tensor", "shape", "dtype", "", box=None, header_style="bold")
    for tensor in spec.tensors:
        tensors.add_row(tensor.name, _shape(tensor.shape), tensor.dtype, "generated")
    for name, value in base.items():
        tensors.add_row(name, _shape(value.shape), str(value.dtype).removeprefix("torch."), "kept fixed, equal in all")
    console.print(tensors)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
