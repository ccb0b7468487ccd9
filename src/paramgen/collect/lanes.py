"""Memory of trained tensors such that an optimizer's step does not depend on where in a tensor a number lies.

A CPU steps most numbers of a tensor by vector instructions and the last ones, which fill no vector, one by one. The two round differently,
so that the last of R networks trained at once would not be bit for bit what it is among other networks. Memory that ends with whole vectors
leaves no such rest. P: numbers of a tensor, Q: P rounded up to whole vectors.
"""

from torch import Tensor

LANES = 32  # numbers in the largest vector: bfloat16 in 512 bits


def in_whole_vectors(tensor: Tensor) -> Tensor:
    """A copy of a tensor whose memory ends with whole vectors; zeros fill the rest."""
    memory = tensor.new_zeros(-(-tensor.numel() // LANES) * LANES)  # (Q,)
    memory[: tensor.numel()] = tensor.flatten()
    return memory[: tensor.numel()].view(tensor.shape)


def whole_memory(tensor: Tensor) -> Tensor:
    """All of the memory (Q,) of a tensor of :func:`in_whole_vectors`, for the optimizer; writing to it changes the tensor."""
    size = -(-tensor.numel() // LANES) * LANES
    return tensor.detach().as_strided((size,), (1,), 0)


def take_gradient(memory: Tensor, leaf: Tensor) -> None:
    """Give the memory (Q,) of a leaf its gradient, 0 in the rest, and clear the leaf's own; nothing where it has none."""
    gradient, leaf.grad = leaf.grad, None
    if gradient is None or len(memory) == gradient.numel():
        memory.grad = None if gradient is None else gradient.flatten()
    else:
        memory.grad = whole_memory(in_whole_vectors(gradient))
