"""FSDP2: each process holds a part of every weight, of its gradient and of its optimizer state (torch's ``fully_shard``).

``--trainer.strategy fsdp2`` is Lightning's ModelParallelStrategy with all processes as one data-parallel group and no tensor parallelism.
Lightning's defaults are one data-parallel process per machine and tensor parallelism within it. Checkpoints are folders, see
:mod:`paramgen.generators.distributed_checkpoints`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from paramgen.errors import ParamgenError
from paramgen.generators.checkpoints import CompleteCheckpoints
from paramgen.generators.distributed_checkpoints import is_sharded, read_shards, write_shards

NAME = "fsdp2"
TIMEOUT = timedelta(minutes=30)  # Lightning's


class Shardable(LightningModule):
    """A module that :class:`FSDP2` can shard."""

    computing: ClassVar[tuple[str, ...]] = ("training_step", "validation_step", "test_step", "draw")
    """Methods that Lightning or a user calls and that read weights outside of a block: the weights are gathered while they run."""

    def blocks(self) -> list[nn.Module]:
        """Large submodules whose weights are gathered one after another; the weights of all others are gathered together.

        Weights of a block may be read through its ``forward`` alone, and through ``resume`` if it has one. None by default.
        """
        return []

    def configure_model(self) -> None:
        """Shard the weights if the strategy is :class:`FSDP2`."""
        if isinstance(self.trainer.strategy, FSDP2) and not isinstance(self, FSDPModule):
            self.trainer.strategy.shard(self)


class FSDP2(ModelParallelStrategy):
    """Shards a generator over all processes of a fit.

    Args:
        timeout: How long a process waits for the others.
    """

    def __init__(self, timeout: timedelta = TIMEOUT) -> None:
        super().__init__(timeout=timeout)
        self.checkpoint_io = CompleteCheckpoints()
        self._mesh: DeviceMesh | None = None

    @property
    def mesh(self) -> DeviceMesh:
        """All processes in one dimension."""
        if self._mesh is None:
            self._mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        return self._mesh

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every process has data of its own."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning restores the optimizer as with other strategies."""
        return True

    def setup_environment(self) -> None:
        """Connect the processes.

        Raises:
            ParamgenError: There is only one.
        """
        if self.num_nodes * self.num_processes < 2:
            raise ParamgenError(
                f"trainer.strategy {NAME} shards a generator over several processes, but this run has 1: "
                "give --trainer.devices 2 or more, or --trainer.strategy auto"
            )
        super().setup_environment()

    def shard(self, module: Shardable) -> None:
        """Shard a module in place. All processes get the weights of the first one; those of others may be on the meta device."""
        undecayed = [name for name, p in module.named_parameters() if getattr(p, "_no_weight_decay", False)]
        weights = dict(module.state_dict()) if self.is_global_zero else {}
        divide(module, self.mesh)
        set_model_state_dict(
            module, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=True)
        )
        sharded = dict(module.named_parameters())
        for name in undecayed:
            sharded[name]._no_weight_decay = True  # type: ignore[attr-defined]

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Weights, of which each process holds a part."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """State of an optimizer, of which each process holds a part."""
        state: dict[str, Any] = optimizer.state_dict()
        return state

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Restore weights that :meth:`load_checkpoint` has read."""
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore optimizers that :meth:`load_checkpoint` has read."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write a folder, to which each process writes its part.

        Raises:
            ParamgenError: The disk is full, or the folder cannot be written.
        """
        io, path = self.checkpoint_io, Path(self.broadcast(filepath))
        assert isinstance(io, CompleteCheckpoints)
        if not self.broadcast(self.is_global_zero and io.link_to_same(checkpoint, path)):
            write_shards(checkpoint, path)
            if self.is_global_zero:
                io.remember(checkpoint, path)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a folder of any number of processes, or a file; each process gets its part of the tensors that are sharded here."""
        path = Path(self.broadcast(checkpoint_path))
        if is_sharded(path):
            return read_shards(path, mesh=self.mesh)
        return self._sharded(self.checkpoint_io.load_checkpoint(path, weights_only=True))

    def _sharded(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint of one process, with this process's part of what is sharded here."""
        assert self.lightning_module is not None
        names = [name for name, p in self.lightning_module.named_parameters() if isinstance(p, DTensor)]
        for states in (checkpoint["state_dict"], checkpoint.get("current_model_state", {})):
            states.update({name: self._part(states[name]) for name in names if name in states})
        for optimizer, states in zip(self.optimizers, checkpoint.get("optimizer_states", []), strict=False):
            params = [p for group in optimizer.param_groups for p in group["params"]]
            for i, moments in states["state"].items():
                moments.update({k: self._part(v) for k, v in moments.items() if v.shape == params[i].shape and v.dim()})
        return checkpoint

    def _part(self, tensor: Tensor) -> DTensor:
        """This process's part of a tensor that every process holds."""
        return distribute_tensor(tensor.to(self.root_device), self.mesh, [Shard(0)], src_data_rank=None)


def divide(module: Shardable, mesh: DeviceMesh) -> None:
    """Leave a part of every weight to each process of a mesh, in place."""
    for block in module.blocks():
        fully_shard(block, mesh=mesh)
        if hasattr(block, "resume"):
            register_fsdp_forward_method(block, "resume")
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for name in module.computing:
        register_fsdp_forward_method(module, name)


StrategyRegistry.register(NAME, FSDP2, description="FSDP2 over all processes")


def class_of(module: nn.Module) -> type[nn.Module]:
    """The class of a module as it was written: ``fully_shard`` gives a module a class derived from it."""
    return next(
        kind for kind in type(module).__mro__ if issubclass(kind, nn.Module) and not issubclass(kind, FSDPModule)
    )


def local(tensor: Tensor) -> Tensor:
    """A tensor, or this process's part of a sharded one; both share their memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def not_finite(module: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """A parameter that is NaN or infinite in a state dict, or None; buffers may hold infinities, as masks do.

    Where the state is sharded all processes get the same answer.
    """
    names = [name for name, _ in module.named_parameters() if name in state]
    finite = [local(state[name]).isfinite().all() for name in names]
    bad = None
    if names and not torch.stack(finite).all():  # one wait for a GPU
        bad = next(name for name, good in zip(names, finite, strict=True) if not good)
    if any(isinstance(state[name], DTensor) for name in names):
        found: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(found, bad)
        bad = next(filter(None, found), None)
    return bad


@contextmanager
def without_values() -> Iterator[None]:
    """While a module is built, its parameters are on the meta device: they take no memory, and others follow. Buffers have their values."""

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return None
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    handle = register_module_parameter_registration_hook(to_meta)  # type: ignore[arg-type]  # its result is what is registered
    try:
        yield
    finally:
        handle.remove()
