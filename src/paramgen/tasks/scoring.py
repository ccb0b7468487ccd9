"""Score many networks of one architecture on one split.

N: networks. M: images. B: batch.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.tasks.base import SplitData
from paramgen.tasks.forward import call, loadable
from paramgen.tasks.stacked import can_stack, channels_innermost, stack_states, stacked_forward, worth_stacking

MEMORY = 1 << 22  # floats of the largest activation and of the weights in one chunk; more falls out of the caches


class Predictions(NamedTuple):
    """What N networks say of M images.

    Args:
        classes: (N, M) int64, predicted classes.
        loss: (N,) mean cross-entropy.
        labels: (M,) int64.
    """

    classes: Tensor
    loss: Tensor
    labels: Tensor

    @property
    def accuracy(self) -> Tensor:
        """(N,) fractions in [0, 1]."""
        return (self.classes == self.labels).float().mean(1)


@torch.no_grad()
def predict(
    model: nn.Module,
    weights: Sequence[Mapping[str, Tensor]],
    data: SplitData,
    batch_size: int = 1024,
    device: torch.device | str = "cpu",
) -> Predictions:
    """Classes and losses of N networks, many at once where that is faster, else one after the other.

    Networks run in their architecture's own dtypes, as if loaded by ``load_state_dict``. Weights that are not finite are scored like
    any others: their loss is NaN or infinite, their classes are as computed.

    Args:
        model: The architecture; it comes back as it was.
        weights: N complete state dicts.
        data: The split.
        batch_size: Images at a time.
        device: Where to compute.

    Raises:
        ValueError: A state dict lacks a tensor of the model.
    """
    device = torch.device(device)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return _predict(model, [loadable(model, state, device) for state in weights], data, batch_size, device)
    finally:
        for module, training in modes.items():
            module.training = training


def _predict(
    model: nn.Module, states: list[dict[str, Tensor]], data: SplitData, batch_size: int, device: torch.device
) -> Predictions:
    classes = torch.empty(len(states), len(data), dtype=torch.int64)
    loss = torch.zeros(len(states))
    chunks: list[tuple[slice, dict[str, Tensor] | None]] | None = None
    done = images = 0
    for x, labels in data.batches(batch_size):
        x, y = x.to(device), labels.to(device)
        if chunks is None:
            chunks = _chunks(model, states, x)
            images = _images_at_once(model, states[0], x) if states else len(x)
        for part, stacked in chunks:
            if stacked is None:
                pieces = channels_innermost(x).split(images)
                logits = torch.cat([call(model, states[part.start], piece) for piece in pieces])[None]
            else:
                logits = stacked_forward(model, shared_images=True)(stacked, x)
            classes[part, done : done + len(y)] = logits.argmax(-1).cpu()  # (n, B)
            loss[part] += cross_entropy(logits, y.expand(len(logits), -1)).sum(1).cpu()
        done += len(y)
    return Predictions(classes, loss / max(len(data), 1), data.labels)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every image under every network.

    Args:
        logits: (N, B, classes).
        labels: (N, B).

    Returns:
        (N, B).
    """
    # classes first: over a last dimension of ten, torch's softmax is three to five times slower
    first = at_least_float32(logits).permute(2, 0, 1).flatten(1)[None]  # (1, classes, N*B)
    return F.cross_entropy(first, labels.reshape(1, -1), reduction="none").view(labels.shape)


def _chunks(
    model: nn.Module, states: list[dict[str, Tensor]], x: Tensor
) -> list[tuple[slice, dict[str, Tensor] | None]]:
    """Which networks run together, with their stacked states; a network alone has none."""
    if len(states) > 1 and worth_stacking(model, x.device) and can_stack(model, states[0], x[:2]):
        numel = max(_largest_activation(model, states[0], x), sum(t.numel() for t in states[0].values()))
        size = max(1, min(len(states), MEMORY // numel))
        starts = range(0, len(states), size)
        return [(slice(i, min(i + size, len(states))), stack_states(states[i : i + size])) for i in starts]
    return [(slice(i, i + 1), None) for i in range(len(states))]


def _images_at_once(model: nn.Module, state: dict[str, Tensor], x: Tensor) -> int:
    """Images that one network takes at a time: of ConvNet-3, 128 in place of 1,024 are 2.5 times faster on a CPU."""
    return len(x) if x.device.type != "cpu" else max(1, MEMORY * len(x) // _largest_activation(model, state, x))


def _largest_activation(model: nn.Module, state: dict[str, Tensor], x: Tensor) -> int:
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


def at_least_float32(logits: Tensor) -> Tensor:
    """Logits to compute a loss of: those of half-precision networks in float32, others as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
