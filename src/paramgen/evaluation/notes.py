"""What an evaluation could not do, in words."""

from collections.abc import Sequence

from torch import Tensor

from paramgen.core.counting import counted
from paramgen.core.samples import Samples
from paramgen.core.zoo import Zoo
from paramgen.evaluation.novelty import Novelty
from paramgen.evaluation.structure import StructureReference
from paramgen.evaluation.thresholds import THRESHOLDS

HUGE, TINY = 1e12, 1e-12  # of the largest weight: three layers of it leave float32


def of_other_zoos(samples: Sequence[Samples], zoo: Zoo) -> list[str]:
    """The samples that record another zoo than the one that they are compared with, in words."""
    notes = list[str]()
    for drawn in samples:
        made = drawn.info
        other = zoo.name != made.zoo if made.zoo_sha256 is None else zoo.sha256 != made.zoo_sha256
        if made.zoo is not None and other:
            where = f"zoo {made.zoo!r}" if made.zoo != zoo.name else f"another zoo of the name {made.zoo!r}"
            notes.append(
                f"The generator of {drawn.name!r} learnt from {where}, not from this one ({zoo.path}): its distances, copies and flags "
                "refer to networks that it has not seen."
            )
    return notes


def notes_of(
    weights: Tensor, novelty: Novelty, reference: StructureReference | None, drawn: Sequence[int], n: int
) -> list[str]:
    """What an evaluation could not do, or what its figures cannot mean, in words.

    Args:
        weights: (K, P) training networks.
        novelty: Both scales of distance.
        reference: What structure is measured by; None for a family, where it is not measured.
        drawn: How many networks each generator drew; none for a family, which uses them all.
        n: How many were requested.
    """
    notes: list[str] = []
    if not len(novelty.heldout) and novelty.training_runs is None:
        notes.append(
            "The zoo holds one training run, and none is held out: there is no held-out row and no zu, and nothing shows how far away a "
            "new network would lie. Distances are in steps between neighbouring checkpoints, and novel networks are not counted."
        )
    elif not len(novelty.heldout) and novelty.training_runs is not None:
        notes.append(
            f"The zoo holds {len(novelty.training_runs)} training runs, and none is held out: there is no held-out row, no zu, and no "
            "ceiling for the shares of novel and good networks. Distances are measured against training runs that are left out in turn."
        )
    if reference is not None and reference.excess < THRESHOLDS.measurable:  # neither where nothing varies
        notes.append(
            f"Only {100 * reference.share:.1f} % of the variance of {reference.basis} lies in the subspace that holds "
            f"{100 * THRESHOLDS.subspace:.0f} % of the zoo's: new networks look like independent noise there, so "
            "structure is given only for rows that lie in the subspace."
        )
    if (weights == weights[0]).all():
        notes.append(
            "All training networks are equal: distances and spreads have no scale, and there is nothing to learn but one network."
        )
    elif novelty.tau == 0:
        notes.append("At least half of the zoo's networks have an exact twin, so tau is 0 and distances have no scale.")
    if (largest := weights.abs().max().item()) > HUGE:
        notes.append(
            f"Weights of the zoo reach {largest:.1e}: products of such numbers overflow, so predictions and distances are meaningless."
        )
    elif largest < TINY:
        notes.append(
            f"No weight of the zoo is larger than {largest:.1e}: its networks give the same output for every input."
        )
    fewest = min(drawn, default=n)
    if fewest < n:
        notes.append(
            f"Every row has {counted(fewest, 'network')}, as the smallest set of samples has, not {n}: best and worst depend on N."
        )
    if reference is not None and min(fewest, n) == 1:
        notes.append(
            "One network per row says nothing of a generator's others: no difference is tested, and no row has a spread."
        )
    return notes
