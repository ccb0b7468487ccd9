"""What the report draws beyond the rows' figures: weights of a first sample next to its nearest training network's (p-diff, Fig. 3)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paramgen.core import distances
from paramgen.core.samples import Samples
from paramgen.core.zoo import Zoo

ROWS, COLUMNS = 16, 32  # weights shown a layer
MOST_LAYERS = 8


def weight_pictures(zoo: Zoo, samples: Sequence[Samples]) -> list[dict[str, Any]]:
    """The first weights of each layer, for the first finite network of each set of samples and the training network nearest to it.

    Args:
        zoo: What the generators learnt from.
        samples: One set of networks a generator.

    Returns:
        One layer each: ``{"tensor", "shape", "pairs": [{"name", "network", "sample", "nearest"}]}``, the last two as rows of weights:
        outputs down, inputs across, kernels flattened. Of more than 8 layers, 8 from first to last.
    """
    if not samples:
        return []
    training = zoo.matrix(zoo.indices("train"))  # (K, P)
    pairs = []
    for drawn in samples:
        finite = drawn.weights.isfinite().all(1).nonzero().flatten()  # (n,)
        if len(finite):
            first = int(finite[0])
            nearest = distances.nearest(drawn.weights[first : first + 1], training).index
            pairs.append((drawn.name, first, drawn.weights[first], training[int(nearest)]))
    layers = [(i, t) for i, t in enumerate(zoo.spec.tensors) if len(t.shape) > 1] if pairs else []
    starts = [0, *torch.tensor([t.numel for t in zoo.spec.tensors]).cumsum(0).tolist()]
    if len(layers) > MOST_LAYERS:
        layers = [layers[round(k * (len(layers) - 1) / (MOST_LAYERS - 1))] for k in range(MOST_LAYERS)]

    def shown(vector: Tensor, i: int, outputs: int) -> list[list[float]]:
        matrix = vector[starts[i] : starts[i + 1]].view(outputs, -1)[:ROWS, :COLUMNS]
        return [[float(f"{v:.4g}") for v in row] for row in matrix.tolist()]

    return [
        {
            "tensor": tensor.name,
            "shape": list(tensor.shape),
            "pairs": [
                {
                    "name": name,
                    "network": first,
                    "sample": shown(sample, i, tensor.shape[0]),
                    "nearest": shown(nearest, i, tensor.shape[0]),
                }
                for name, first, sample, nearest in pairs
            ],
        }
        for i, tensor in layers
    ]
