"""Memory for trained tensors in which an optimizer's step on a number does not depend on the number's position.

A CPU updates most numbers of a tensor with vector instructions, and the last ones, which do not fill a vector, one by one. The two round
differently: the last of R networks that are trained together would differ, in some bits, from the same network in another group. Memory
that is padded to whole vectors has no such remainder. P: numbers of a tensor, Q: P rounded up to whole vectors.
"""

from torch import Tensor

LANES = 32  # numbers in the largest vector: bfloat16 in 512 bits


def in_whole_vectors(tensor: Tensor) -> Tensor:
    """A copy of a tensor, in memory that is padded with zeros to whole vectors."""
    memory = tensor.new_zeros(-(-tensor.numel() // LANES) * LANES)  # (Q,)
    memory[: tensor.numel()] = tensor.flatten()
    return memory[: tensor.numel()].view(tensor.shape)


def whole_memory(tensor: Tensor) -> Tensor:
    """All of the memory (Q,) of a tensor of :func:`in_whole_vectors`, for the optimizer; writing to it changes the tensor."""
    size = -(-tensor.numel() // LANES) * LANES
    return tensor.detach().as_strided((size,), (1,), 0)


def take_gradient(memory: Tensor, leaf: Tensor) -> None:
    """Move the gradient of a leaf, if it has one, to the leaf's memory (Q,); it is 0 in the padding."""
    gradient, leaf.grad = leaf.grad, None
    if gradient is None or len(memory) == gradient.numel():
        memory.grad = None if gradient is None else gradient.flatten()
    else:
        memory.grad = whole_memory(in_whole_vectors(gradient))
