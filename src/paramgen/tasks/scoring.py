"""Run many networks of one architecture on one split, and score them.

N: networks. M: items of the split. B: batch. n: networks that run together.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from paramgen.core.params import StateDict
from paramgen.tasks.forward import Caller, all_loadable, call
from paramgen.tasks.items import SplitData
from paramgen.tasks.score import Scored, Scores
from paramgen.tasks.stacked import can_stack, channels_innermost, stack_states, stacked_forward, worth_stacking

MEMORY = 1 << 22  # floats of the largest activation and of the weights in one chunk; more exceeds the caches


class Output(NamedTuple):
    """What some networks return for one batch.

    Args:
        networks: Which of the N networks.
        items: Which of the M items.
        output: (n, B, ...).
        target: (B, ...), on the same device.
    """

    networks: slice
    items: slice
    output: Tensor
    target: Tensor


@torch.no_grad()
def run_many(
    model: nn.Module,
    weights: Sequence[Mapping[str, Tensor]],
    data: SplitData,
    batch_size: int = 1024,
    device: torch.device | str = "cpu",
) -> Iterator[Output]:
    """Outputs of N networks for every item of a split, many networks at once where that is faster.

    Networks run in their architecture's own dtypes, as if loaded by ``load_state_dict``, in evaluation mode.

    Args:
        model: The architecture; it comes back as it was.
        weights: N complete state dicts.
        data: The split.
        batch_size: Items at a time.
        device: Where to compute.

    Raises:
        ValueError: A state dict lacks a tensor of the model.
    """
    device = torch.device(device)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield from _run(model, all_loadable(model, weights, device), data, batch_size, device)
    finally:
        for module, training in modes.items():
            module.training = training


def score_networks(
    task: Scored,
    model: nn.Module,
    weights: Sequence[Mapping[str, Tensor]],
    data: SplitData,
    batch_size: int = 1024,
    device: torch.device | str = "cpu",
    targets: Sequence[Tensor] | None = None,
) -> Scores:
    """Scores of N networks on a split.

    Weights that are not finite are scored like any others: their loss is NaN or infinite, their items are as computed.

    Args:
        task: Says what the score is.
        model: The architecture; it comes back as it was.
        weights: N complete state dicts.
        data: The split.
        batch_size: Items at a time.
        device: Where to compute.
        targets: (M, ...) for each network, where they are not those of the split.

    Raises:
        ValueError: A state dict lacks a tensor of the model.
    """
    N, M = len(weights), len(data)
    loss, items = torch.zeros(N), torch.empty(N, M)
    predictions: Tensor | None = None
    for run in run_many(model, weights, data, batch_size, device):
        target = run.target if targets is None else _own(targets, run)
        measured = task.measure(run.output, target)
        if run.items.start == run.networks.start == 0:  # the first shows the types
            items = items.to(measured.items.dtype)
            if measured.predictions is not None:
                predictions = torch.empty(N, M, dtype=measured.predictions.dtype)
        items[run.networks, run.items] = measured.items.cpu()
        if measured.predictions is not None and predictions is not None:
            predictions[run.networks, run.items] = measured.predictions.cpu()
        each = target.expand(len(run.output), *run.target.shape)
        loss[run.networks] += task.loss(run.output, each).sum(1).float().cpu()
    return Scores(task.value(items), loss / max(M, 1), items, predictions)


def score_each(
    task: Scored,
    model: nn.Module,
    weights: Sequence[Mapping[str, Tensor]],
    splits: Sequence[SplitData],
    device: torch.device | str = "cpu",
) -> Scores:
    """Scores of N networks, each on its own split; networks whose splits have the same inputs are run together.

    Args:
        task: Says what the score is.
        model: The architecture; it comes back as it was.
        weights: N complete state dicts.
        splits: N splits.
        device: Where to compute.

    Returns:
        Scores; with items and predictions if all splits have the same number of items.

    Raises:
        ValueError: Not as many splits as networks, or a state dict lacks a tensor of the model.
    """
    if len(weights) != len(splits):
        raise ValueError(f"expected one split for each of {len(weights)} networks, got {len(splits)}")
    alike: dict[int, list[int]] = defaultdict(list)  # networks of the same inputs
    for i, split in enumerate(splits):
        alike[id(split.input_source)].append(i)
    parts = []
    for places in alike.values():
        first = splits[places[0]]
        own = None if all(splits[i] is first for i in places) else [splits[i].targets for i in places]
        parts.append(score_networks(task, model, [weights[i] for i in places], first, device=device, targets=own))
    order = torch.tensor([i for places in alike.values() for i in places], dtype=torch.int64).argsort()
    value = torch.cat([torch.empty(0, dtype=torch.float64), *(part.value for part in parts)])[order]
    loss, items, predictions = (
        _joined([getattr(part, name) for part in parts], order) for name in ("loss", "items", "predictions")
    )
    return Scores(value, loss, items, predictions)


def _joined(parts: Sequence[Tensor | None], order: Tensor) -> Tensor | None:
    """One tensor of all networks, in order; None where a part is missing or they differ in their number of items."""
    tensors = [part for part in parts if part is not None]
    complete = len(tensors) == len(parts) and len({tensor.shape[1:] for tensor in tensors}) == 1
    return torch.cat(tensors)[order] if complete else None


def _own(targets: Sequence[Tensor], run: Output) -> Tensor:
    """Each network's own targets (n, B, ...) of a batch."""
    return torch.stack([target[run.items] for target in targets[run.networks]]).to(run.output.device)


def _run(
    model: nn.Module, states: list[StateDict], data: SplitData, batch_size: int, device: torch.device
) -> Iterator[Output]:
    chunks: list[tuple[slice, StateDict | None]] | None = None
    done = at_once = 0
    alone, together = Caller(model), stacked_forward(model, shared_inputs=True)
    for x, target in data.batches(batch_size):
        x, y = x.to(device), target.to(device)
        if chunks is None:
            chunks = _chunks(model, states, x)
            at_once = _items_at_once(model, states[0], x) if states else len(x)
        for part, stacked in chunks:
            if stacked is None:
                pieces = channels_innermost(x).split(at_once)
                output = torch.cat([alone(states[part.start], piece) for piece in pieces])[None]
            else:
                output = together(stacked, x)
            yield Output(part, slice(done, done + len(y)), output, y)
        done += len(y)


def _chunks(model: nn.Module, states: list[StateDict], x: Tensor) -> list[tuple[slice, StateDict | None]]:
    """Which networks run together, with their stacked states; None for a single network."""
    if len(states) > 1 and worth_stacking(model, x.device) and can_stack(model, states[0], x[:2]):
        numel = max(_largest_activation(model, states[0], x), sum(t.numel() for t in states[0].values()))
        size = max(1, min(len(states), MEMORY // numel))
        starts = range(0, len(states), size)
        return [(slice(i, min(i + size, len(states))), stack_states(states[i : i + size])) for i in starts]
    return [(slice(i, i + 1), None) for i in range(len(states))]


def _items_at_once(model: nn.Module, state: StateDict, x: Tensor) -> int:
    """Items that one network takes at a time: for ConvNet-3 on a CPU, 128 are 2.5 times faster than 1,024."""
    return len(x) if x.device.type != "cpu" else max(1, MEMORY * len(x) // _largest_activation(model, state, x))


def _largest_activation(model: nn.Module, state: StateDict, x: Tensor) -> int:
    """Numbers in the largest output of a layer for a whole batch."""
    sizes = [x.numel()]
    hooks = [
        module.register_forward_hook(lambda _m, _i, out: sizes.append(out.numel() if isinstance(out, Tensor) else 0))
        for module in model.modules()
    ]
    try:
        call(model, state, x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes[0], max(sizes[1:], default=0) * len(x))
