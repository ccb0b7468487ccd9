"""The networks of one row, before anything is measured on them. N: networks. P: generated parameters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from paramgen.core.params import ParamSpec, StateDict, state_digest
from paramgen.core.samples import SampleInfo, Samples
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation.results import Kind, Role
from paramgen.tasks import TaskFamily

HELDOUT = "held-out runs"


@dataclass(frozen=True)
class NetworkSet:
    """Networks that are measured together.

    Args:
        name: Printed in tables and pictures.
        kind: Reference, baseline or generator.
        role: What the row is.
        weights: (N, P), may hold NaN; None of a method that gives predictions and no weights.
        tasks: N names of tasks that the networks are for; None for a zoo of one task.
        info: Where the networks come from.
        sample_seconds: Seconds to draw one.
        scores: (N,) test scores, of a method without weights.
        identity: (N,) which training network conditioned each, if any.
        run: (N,) which run of the training networks conditioned each, if any.
        noise: Of noised copies: standard deviation of the noise, in the zoo's spread.
    """

    name: str
    kind: Kind
    role: Role
    weights: Tensor | None
    tasks: Sequence[str] | None = None
    info: SampleInfo = field(default_factory=SampleInfo)
    sample_seconds: float | None = None
    scores: Tensor | None = None
    identity: Tensor | None = None
    run: Tensor | None = None
    noise: float | None = None

    def __len__(self) -> int:
        """N."""
        filled = self.scores if self.weights is None else self.weights
        return 0 if filled is None else len(filled)

    def counted(self, unseen: Sequence[str]) -> Tensor:
        """Which networks (N,) the row's values are of: those for unseen tasks; all of a zoo of one task."""
        if self.tasks is None:
            return torch.ones(len(self), dtype=torch.bool)
        of_interest = set(unseen)
        return torch.tensor([task in of_interest for task in self.tasks])


class NetworkStates(list[StateDict]):
    """Complete state dicts of a row's networks."""

    @cached_property
    def digests(self) -> list[str]:
        """A sha256 of each."""
        return [state_digest(state) for state in self]


def complete(weights: Tensor | None, spec: ParamSpec, base: StateDict) -> NetworkStates:
    """Complete state dicts of networks (N, P) with the tensors that are not generated, on the base's device; none without weights."""
    return NetworkStates([] if weights is None else ({**base, **spec.unflatten(row)} for row in weights))


def generated(samples: Samples, zoo: Zoo, tasks: TaskFamily | None, n: int) -> NetworkSet:
    """What a generator drew: the first n networks, or all of them for the tasks of a family.

    Args:
        samples: Its networks.
        zoo: What it was fitted on.
        tasks: What the networks do.
        n: Networks per row, of a zoo of one task.

    Raises:
        ParamgenError: Samples for a family that name no tasks, none of an unseen one, or one that the family does not have.
    """
    weights, info, seconds = samples.weights, samples.info, samples.info.sample_seconds
    each = None if seconds is None else seconds / (samples.total or len(weights))
    role: Role = "generator"
    if tasks is not None and tasks.unseen:
        return NetworkSet(samples.name, "generator", role, weights, _tasks_of(samples, zoo, tasks), info, each)
    identity, run = (None if of is None else of[:n] for of in (samples.identity, samples.run))
    return NetworkSet(samples.name, "generator", role, weights[:n], None, info, each, identity=identity, run=run)


def _tasks_of(samples: Samples, zoo: Zoo, tasks: TaskFamily) -> list[str]:
    """The tasks that samples are for."""
    if samples.task is None:
        raise ParamgenError(
            f"samples {samples.name!r} do not say what task each network is for; draw them with paramgen sample --zoo "
            f"{zoo.name}, or give each network of samples.json its 'task'"
        )
    tasks.check(samples.task)
    if missing := sorted(set(tasks.unseen) - set(samples.task)):
        raise ParamgenError(f"samples {samples.name!r} hold no network for the unseen task {missing[0]!r}")
    return samples.task
