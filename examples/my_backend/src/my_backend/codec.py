"""One token for each tensor."""

from typing import Any, Literal

from paramgen import Block, ParamCodec, ParamSpec


class TensorCodec(ParamCodec):
    """One token for each tensor, padded to the size of the largest.

    Args:
        normalisation: ``layer``, ``weight`` or ``centre``; see ParamCodec.
    """

    def __init__(self, normalisation: Literal["layer", "weight", "centre"] = "layer") -> None:
        super().__init__(normalisation)

    def arguments(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"normalisation": self.normalisation}

    def blocks_of(self, spec: ParamSpec) -> tuple[int, list[Block]]:
        """The size of the largest tensor, and a piece of this size for each tensor."""
        size, blocks, source = max(tensor.numel for tensor in spec.tensors), [], 0
        for row, tensor in enumerate(spec.tensors):
            blocks.append(Block(tensor, source, offset=row * size, rows=1, width=tensor.numel, stride=size))
            source += tensor.numel
        return size, blocks
