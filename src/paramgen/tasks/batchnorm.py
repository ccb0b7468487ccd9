"""Batch-norm statistics measured again: reset, then the cumulative average over batches of train images.

Generated statistics and recalibrated ones are different claims, so a report shows both.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn
from torch.func import vmap

from paramgen.core.params import COUNTER, StateDict, last_part
from paramgen.tasks.forward import all_loadable, call
from paramgen.tasks.items import SplitData
from paramgen.tasks.stacked import stack_states, worth_stacking

BATCHES, BATCH_SIZE = 20, 128
_BatchNorm = nn.modules.batchnorm._BatchNorm


def has_statistics(model: nn.Module) -> bool:
    """Whether the network keeps running statistics."""
    return bool(_norms(model))


def calibration_inputs(train: SplitData, device: torch.device | str = "cpu") -> list[Tensor]:
    """The batches of a train split that statistics are measured on: 20 of 128 items, fewer where the split ends."""
    return [x.to(device) for x, _ in islice(train.batches(BATCH_SIZE), BATCHES)]


def recalibrate(
    model: nn.Module, states: Sequence[StateDict], images: Sequence[Tensor], chunk: int = 32
) -> list[StateDict]:
    """Complete state dicts with running statistics measured again on `images`, everything else as given.

    Equal to torch's own ``momentum=None`` over the same batches. Many networks run at once where that is faster, else one by one.

    Args:
        model: The architecture; its own weights are not used and do not change.
        states: N complete state dicts.
        images: Batches of train images, each (B, ...).
        chunk: Networks run at once.
    """
    statistics = [f"{name}.{s}" if name else s for name, _ in _norms(model) for s in ("running_mean", "running_var")]
    if not statistics:
        return list(states)
    out: list[StateDict] = []
    with torch.no_grad(), _measuring(model) as norms:
        for start in range(0, len(states), chunk):
            group = states[start : start + chunk]
            loaded = stack_states(all_loadable(model, group))
            stacked = {name: tensor for name, tensor in loaded.items() if last_part(name) != COUNTER}
            measured = _run(model, norms, stacked, statistics, images)
            out += [{**s, **{name: measured[name][i] for name in statistics}} for i, s in enumerate(group)]
    return out


def _run(
    model: nn.Module, norms: list[_BatchNorm], stacked: StateDict, statistics: list[str], images: Sequence[Tensor]
) -> StateDict:
    """Statistics of a stack of networks, each (N, channels)."""

    def step(state: StateDict, x: Tensor) -> StateDict:
        state = {name: t.clone() if name in statistics else t for name, t in state.items()}
        call(model, state, x)  # batch norm writes its statistics in place
        return {name: state[name] for name in statistics}

    together = worth_stacking(model, images[0].device)
    for i, x in enumerate(images):
        for norm in norms:
            norm.momentum = 1 / (i + 1)  # the cumulative average; at i = 0 it discards the previous value
        measured = None
        if together:
            try:
                measured = vmap(step, in_dims=(0, None))(stacked, x)
            except RuntimeError:  # control flow or an operation that vmap cannot batch
                together = False
        if measured is None:
            rows = [step({name: t[n] for name, t in stacked.items()}, x) for n in range(len(stacked[statistics[0]]))]
            measured = {name: torch.stack([row[name] for row in rows]) for name in statistics}
        stacked = {**stacked, **measured}
    return {name: stacked[name] for name in statistics}


@contextmanager
def _measuring(model: nn.Module) -> Iterator[list[_BatchNorm]]:
    """Everything in evaluation mode except batch norm; the model is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    norms = [norm for _, norm in _norms(model)]
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.num_batches_tracked = None  # vmap cannot count in place
    try:
        yield norms
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
        for module, training in modes:
            module.training = training


def _norms(model: nn.Module) -> list[tuple[str, _BatchNorm]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
