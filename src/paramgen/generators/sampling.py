"""Requests to a generator, and their results.

n: networks. L tokens of D numbers. C: numbers of a condition. K: known states. S: states of a trajectory, m: the networks that it follows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from paramgen.errors import ParamgenError, require_non_negative, require_positive
from paramgen.nn.states import RandomState

State = int | Sequence[int] | Tensor | RandomState
Watch = Callable[[float, Tensor], None]


@dataclass(frozen=True, eq=False)
class SampleRequest:
    """Networks to draw. None leaves a choice to the generator.

    Args:
        n: Number of networks.
        condition: (n, C), or None for networks of any task.
        scheduler: Solver, a diffusers scheduler such as DDIM.
        num_inference_steps: Solver steps.
        temperature: Factor of all noise; below 1 samples are closer to the mean.
        guidance_scale: How strongly to follow the condition: 0 ignores it, 1 applies it as trained, above 1 amplifies it.
        state: Which of the states that the generator was fitted with: a number for all networks, one number each (n,), weights over the
            known states (n, K), ``random`` or ``mixture``.
        prompt: Scores to reach, by name, for generators fitted with ``data.prompt``.
        start: (n, L, D) tokens of networks to start from, for generators fitted with ``data.start``.
        keep_trajectory: Record the first networks while they are denoised.
        generator: Source of randomness; torch's global one when None.
        rows: Which of the n networks are wanted, in rising order: those that a request for all n would give, from the same noise.
            None: all. A backend that ignores it draws all, and the others are dropped.
        progress: Called with the share that is done, 0 to 1, while networks are drawn. A backend that ignores it reports nothing.

    Raises:
        ParamgenError: `n` or `num_inference_steps` below 1, a temperature below 0, a trajectory of some rows.
    """

    n: int
    condition: Tensor | None = None
    scheduler: str | None = None
    num_inference_steps: int | None = None
    temperature: float = 1.0
    guidance_scale: float | None = None
    state: State | None = None
    prompt: Mapping[str, float] | None = None
    start: Tensor | None = None
    keep_trajectory: bool = False
    generator: torch.Generator | None = None
    rows: Sequence[int] | None = None
    progress: Callable[[float], None] | None = None

    def __post_init__(self) -> None:
        require_positive(n=self.n, num_inference_steps=self.num_inference_steps)
        require_non_negative(temperature=self.temperature)
        if self.keep_trajectory and self.rows is not None:
            raise ParamgenError("only the first networks keep a trajectory; sample without shards to keep one")

    @property
    def wanted(self) -> Sequence[int]:
        """The rows; all n without them."""
        return range(self.n) if self.rows is None else self.rows

    def parts(self, size: int) -> Iterator["SampleRequest"]:
        """Requests for at most `size` networks each, in order, that draw the same noise one after another.

        Their condition and start are those of the wanted rows alone, of which a part may have none. The first one keeps the trajectory.
        """
        for first in range(0, self.n, size):
            n = min(size, self.n - first)
            chosen = [row for row in self.wanted if first <= row < first + n]
            yield replace(
                self.between(first / self.n, (first + n) / self.n),
                n=n,
                rows=None if self.rows is None else [row - first for row in chosen],
                condition=None if self.condition is None else self.condition[chosen],
                start=None if self.start is None else self.start[chosen],
                keep_trajectory=self.keep_trajectory and first == 0,
            )

    def between(self, begin: float, end: float) -> "SampleRequest":
        """The same request as a part of the work: its progress goes from `begin` to `end`."""
        report = self.progress
        if report is None:
            return self
        return replace(self, progress=lambda done: report(begin + done * (end - begin)))

    def watch(self, path: Watch | None) -> Watch | None:
        """What a solver calls with the share of its steps that is done and its state: reports the progress, and calls `path`."""
        report = self.progress
        if report is None:
            return path

        def watch(done: float, x: Tensor) -> None:
            report(done)
            if path is not None:
                path(done, x)

        return watch


class Drawn(NamedTuple):
    """Networks as tokens, and how they were drawn: the settings that were used, rather than the requested ones.

    Args:
        tokens: (n, L, D).
        scheduler: Solver; None if the generator has none.
        num_inference_steps: Its steps.
        guidance_scale: None where no condition was followed.
        identity: The training network that each was conditioned on, by its place in the zoo's whole train split (see
            ``zoo_info["networks"]``); None if the generator is not conditioned on networks.
        run: The same for training runs (``zoo_info["runs"]``), where it is conditioned on runs rather than on networks.
        trajectory: (S, m, L, D) the first networks while they are denoised, if requested.
    """

    tokens: Tensor
    scheduler: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    identity: list[int | None] | None = None
    run: list[int | None] | None = None
    trajectory: Tensor | None = None


def one_for_each(condition: Tensor | Sequence[float] | None, n: int) -> Tensor | None:
    """A condition of n networks (n, C), or of all of them (C,), as (n, C).

    Raises:
        ParamgenError: It has another shape, or is not numbers.
    """
    if condition is None:
        return None
    try:
        given = torch.as_tensor(condition, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise ParamgenError(f"condition is {condition!r}, expected numbers") from error
    if given.dim() == 1:
        return given.expand(n, -1)
    if given.dim() != 2 or len(given) != n:
        raise ParamgenError(
            f"condition has the shape {tuple(given.shape)}, expected ({n}, C), or (C,) for all networks"
        )
    return given


def some_rows(draw: Callable[[SampleRequest], Drawn], request: SampleRequest) -> Drawn:
    """The wanted rows of a request, whether or not a backend draws them alone.

    Args:
        draw: Draws the wanted rows, or all of them.
        request: What is wanted.
    """
    drawn = draw(request)
    if request.rows is None or len(drawn.tokens) == len(request.rows):
        return drawn
    return drawn._replace(
        tokens=drawn.tokens[list(request.rows)],
        identity=None if drawn.identity is None else [drawn.identity[row] for row in request.rows],
        run=None if drawn.run is None else [drawn.run[row] for row in request.rows],
    )


def on_cpu(generator: torch.Generator | None) -> torch.Generator:
    """A generator on the CPU: the given one, or a new one that it (or torch's global one) seeds."""
    if generator is not None and generator.device.type == "cpu":
        return generator
    device = "cpu" if generator is None else generator.device
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator, device=device)))
