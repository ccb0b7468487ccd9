"""Many networks of one architecture in one forward pass.

On a CPU this pays for networks of linear layers, up to fivefold. Convolutions become grouped convolutions, which oneDNN runs slower than
one network after the other (measured: ConvNet-3, 16 networks of 128 images, 2.2 s against 0.7 s), so there they go one by one,
with channels innermost (ConvNet-3 trains in 38 ms a step in place of 60).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from paramgen.core.params import StateDict
from paramgen.tasks.compressed_layers import CompressedConvolution
from paramgen.tasks.forward import Caller

CONVOLUTIONS = (nn.modules.conv._ConvNd, nn.LSTM, nn.GRU, CompressedConvolution)


def stack_states(states: Sequence[Mapping[str, Tensor]]) -> StateDict:
    """State dicts of N networks as one, every tensor (N, …)."""
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def worth_stacking(network: nn.Module, device: torch.device) -> bool:
    """Whether networks of this architecture run faster together than one after another."""
    return device.type != "cpu" or not any(isinstance(module, CONVOLUTIONS) for module in network.modules())


def channels_innermost(x: Tensor) -> Tensor:
    """The same images (B, C, H, W), laid out so that a CPU's convolutions, norms and poolings are faster."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def can_stack(network: nn.Module, state: Mapping[str, Tensor], x: Tensor) -> bool:
    """Whether vmap runs this architecture: data-dependent control flow, dropout and some operators forbid it.

    Args:
        network: In the mode that it will run in.
        state: One network's state dict, :func:`~paramgen.tasks.forward.loadable`.
        x: (B, ...) a few items.
    """
    pair = {name: tensor.detach().clone().expand(2, *tensor.shape).clone() for name, tensor in state.items()}
    try:
        with torch.no_grad():
            stacked_forward(network)(pair, x.expand(2, *x.shape))
    except Exception:  # the plain forward raises it again if vmap is not the cause
        return False
    return True


def stacked_forward(
    network: nn.Module, shared_inputs: bool = False, shared: Collection[str] = ()
) -> Callable[[StateDict, Tensor], Tensor]:
    """A function of loadable states (N, …) and inputs that returns outputs (N, B, …).

    Args:
        network: The architecture, in the mode that it will run in; its own weights are not used.
        shared_inputs: Inputs are (B, ...) for all networks rather than (N, B, ...).
        shared: Names of the tensors that all networks have in common and that are not stacked.
    """
    forward = Caller(network)

    def together(state: StateDict, x: Tensor) -> Tensor:
        dims = {name: None if name in shared else 0 for name in state}
        # on a CPU, vmap runs fused attention network by network and warns about it
        with sdpa_kernel(SDPBackend.MATH) if x.device.type == "cpu" else nullcontext():
            outputs: Tensor = vmap(forward, in_dims=(dims, None if shared_inputs else 0))(state, x)
            return outputs

    return together
