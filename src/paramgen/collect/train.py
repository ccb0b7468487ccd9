"""Train many networks of one architecture at once, each as if it were alone.

R: networks trained at once. B: batch.

Every network has its own initialisation, order of the data and augmentation, all drawn from its own seed, and the optimizers are
elementwise, so that network r of R is what it would be alone. Parameters that are not selected are frozen. So are the statistics of
batch-norm layers whose statistics are not selected: these layers normalise as in evaluation. The frozen tensors are those of the
zoo's base.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, pi
from typing import Any, Literal

import torch
from torch import Tensor, nn

from paramgen.collect.lanes import in_whole_vectors, take_gradient, whole_memory
from paramgen.core.devices import forked_random
from paramgen.core.params import StateDict, can_be_generated, state_tensors, tied_names
from paramgen.core.seeds import generator, mix
from paramgen.errors import ParamgenError, require_choice, require_non_negative, require_positive
from paramgen.tasks.forward import Caller, loadable
from paramgen.tasks.items import TrainingData
from paramgen.tasks.score import cross_entropy
from paramgen.tasks.stacked import can_stack, channels_innermost, stacked_forward, worth_stacking

_Optimizer = Literal["sgd", "adam", "adamw"]
_Schedule = Literal["constant", "cosine", "one_cycle"]


@dataclass(frozen=True)
class OptimSettings:
    """How networks are trained.

    Args:
        optimizer: ``sgd`` (with momentum), ``adam`` or ``adamw``.
        lr: Peak learning rate.
        schedule: ``constant``, ``cosine`` (to 0), or ``one_cycle`` (up for three tenths, then cosine to 0).
        batch_size: Images per step. The last incomplete batch of an epoch is dropped.
        momentum: Momentum of SGD.
        weight_decay: Weight decay, as defined by the optimizer.

    Raises:
        ParamgenError: An unknown optimizer or schedule, or a number that is too small.
    """

    optimizer: _Optimizer = "adam"
    lr: float = 3e-3
    schedule: _Schedule = "constant"
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_choice(_Optimizer, optimizer=self.optimizer)
        require_choice(_Schedule, schedule=self.schedule)
        require_positive(lr=self.lr, batch_size=self.batch_size)
        require_non_negative(momentum=self.momentum, weight_decay=self.weight_decay)

    def epoch(self, items: int) -> int:
        """Steps of an epoch of some items; the last incomplete batch is dropped."""
        return items // min(self.batch_size, items)

    def factor(self, step: int, steps: int) -> float:
        """Factor of the learning rate at a step of `steps`."""
        if self.schedule == "constant":
            return 1.0
        done = step / max(steps, 1)
        if self.schedule == "one_cycle" and done < 0.3:
            return 0.04 + 0.96 * done / 0.3
        done = (done - 0.3) / 0.7 if self.schedule == "one_cycle" else done
        return 0.5 + 0.5 * cos(pi * done)

    def make(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """The optimizer; each of its three forms is elementwise, so stacked networks do not mix."""
        fused = not any(p.is_complex() for p in parameters)  # torch has no fused step for complex numbers
        common: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay, "fused": fused}
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, momentum=self.momentum, **common)
        return (torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW)(parameters, **common)


class NetworkGroup:
    """R networks of one architecture whose selected tensors are trained together.

    Args:
        network: The architecture.
        states: R complete state dicts to start from.
        selected: Names of the tensors that change; statistics of batch norm may be among them.
        device: Device to train on, for example cuda.
        stacked: Run them as one by vmap, or one after another, with the same results; by default, the faster one that works.
        loss: Losses (N, B) of outputs (N, B, ...) and targets (N, B, ...); see :meth:`paramgen.tasks.score.Scored.loss`.
        with_targets: Whether networks take targets too and return their losses; see :attr:`paramgen.tasks.score.Scored.takes_targets`.
        among: Networks that these are a part of. One of several runs as it would among all of them, to be the same bit for bit.
    """

    def __init__(
        self,
        network: nn.Module,
        states: Sequence[Mapping[str, Tensor]],
        selected: Sequence[str],
        device: torch.device | str = "cpu",
        stacked: bool | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
        with_targets: bool = False,
        among: int = 1,
    ) -> None:
        self.with_targets = with_targets
        self.loss, self.among = loss, max(among, len(states))
        self.network = copy.deepcopy(network).to(device).train()
        self.size, self.device = len(states), torch.device(device)
        _freeze_statistics(self.network, set(selected))
        firsts = tied_names(network)
        self._firsts = {name: firsts[name] for name in state_tensors(network)}
        trained_names = {self._firsts[name] for name in selected}
        loaded = [loadable(self.network, state, self.device) for state in states]
        self.leaves: StateDict = {}  # trained by gradients, (R, …)
        self.moving: StateDict = {}  # statistics that training moves, and all else that differs between networks, (R, …)
        self.fixed: StateDict = {}  # the same for all networks and at all times, (…)
        trained = {n for n, m in self.network.named_modules() if m.training}
        for name in dict.fromkeys(self._firsts.values()):
            tensors = [state[name] for state in loaded]
            parameter = isinstance(_get(self.network, name), nn.Parameter)
            moves = not parameter and name.rpartition(".")[0] in trained
            if parameter and name in trained_names and can_be_generated(tensors[0]):
                self.leaves[name] = in_whole_vectors(torch.stack(tensors)).requires_grad_()
            elif moves or not all(torch.equal(t, tensors[0]) for t in tensors[1:]):
                self.moving[name] = torch.stack(tensors)
            else:
                self.fixed[name] = tensors[0].clone()
        if not self.leaves:
            raise ParamgenError("nothing to train: only statistics were selected")
        self._stacked = stacked
        self._call = Caller(self.network)
        self._together = stacked_forward(self.network, shared=self.fixed.keys())

    def states(self) -> list[StateDict]:
        """R complete state dicts on the CPU, in the order of the architecture's own."""
        stacked = {n: t.detach().cpu() for n, t in (self.leaves | self.moving).items()}
        fixed = {n: t.cpu() for n, t in self.fixed.items()}
        return [
            {n: stacked[c][r].clone() if c in stacked else fixed[c] for n, c in self._firsts.items()}
            for r in range(self.size)
        ]

    def backward(self, x: Tensor, y: Tensor, seeds: Sequence[int], step: int = 0) -> Tensor:
        """Set the gradient of every network's mean loss on its own batch.

        Args:
            x: Inputs (R, B, ...).
            y: Targets (R, B, ...).
            seeds: One a network, for its dropout.
            step: Of the training; each has its own dropout.

        Returns:
            Losses (R,).
        """
        if self._stacked is None:
            self._stacked = self._decide(x)
        return self._backward_stacked(x, y) if self._stacked else self._backward_each(x, y, seeds, step)

    def _decide(self, x: Tensor) -> bool:
        if self.among == 1 or self.with_targets or not worth_stacking(self.network, self.device):
            return False
        one = {n: t[0] for n, t in (self.leaves | self.moving).items()} | self.fixed
        return can_stack(self.network, one, x[0, :2])

    def _backward_stacked(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self._together(self.leaves | self.moving | self.fixed, x)  # (R, B, classes)
        losses = self.loss(logits, y).mean(1)
        losses.sum().backward()
        return losses.detach()

    def _backward_each(self, x: Tensor, y: Tensor, seeds: Sequence[int], step: int) -> Tensor:
        losses = torch.empty(self.size)
        for tensor in self.leaves.values():
            tensor.grad = torch.empty_like(tensor) if tensor.grad is None else tensor.grad
        for r in range(self.size):
            leaves = {n: t[r].detach().requires_grad_() for n, t in self.leaves.items()}
            moving = {n: t[r] for n, t in self.moving.items()}  # views: statistics are moved in place
            with _randomness(mix(seeds[r], step, 1), self.device):
                inputs = (channels_innermost(x[r]), *([y[r]] if self.with_targets else []))
                logits = self._call(leaves | moving | self.fixed, *inputs)
                loss = self.loss(logits[None], y[r][None]).mean(1).sum()
                gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            for tensor, gradient in zip(self.leaves.values(), gradients, strict=True):
                assert tensor.grad is not None  # made above
                tensor.grad[r] = 0.0 if gradient is None else gradient
            losses[r] = loss.detach()
        return losses


class GroupTrainer:
    """The steps of R networks over their own shuffled epochs.

    Args:
        group: The networks.
        data: What they are trained on.
        settings: Optimizer, rate and batch.
        seeds: One a network: its order of the data, its augmentation, its dropout.
        steps: Optimizer steps in all, which the schedule spans.
    """

    def __init__(
        self, group: NetworkGroup, data: TrainingData, settings: OptimSettings, seeds: Sequence[int], steps: int
    ) -> None:
        self.group, self.data, self.settings, self.seeds, self.steps = group, data, settings, seeds, steps
        self.batch_size = min(settings.batch_size, len(data))
        self.steps_per_epoch = settings.epoch(len(data))
        self.memory = {name: whole_memory(leaf) for name, leaf in group.leaves.items()}  # (Q,) each
        self.optimizer = settings.make(list(self.memory.values()))
        self.step = 0

    def run(self) -> Iterator[int]:
        """Train from the epoch that was reached, yielding the number of steps done after each step."""
        while self.step < self.steps:
            epoch = self.step // self.steps_per_epoch
            generators = [generator(seed, epoch) for seed in self.seeds]
            count = min(self.steps_per_epoch, self.steps - self.step)
            order = self._order(generators)[:count]
            for x, y in self.data.training_batches(order, generators):
                rate = self.settings.lr * self.settings.factor(self.step, self.steps)
                for parameters in self.optimizer.param_groups:
                    parameters["lr"] = rate
                self.group.backward(x.to(self.group.device), y.to(self.group.device), self.seeds, self.step)
                for name, leaf in self.group.leaves.items():
                    take_gradient(self.memory[name], leaf)
                self.optimizer.step()
                self.step += 1
                yield self.step

    @property
    def between_epochs(self) -> bool:
        """Whether training can resume from the current :meth:`state`."""
        return self.step % self.steps_per_epoch == 0

    def state(self) -> StateDict:
        """Everything that resuming needs, as tensors by name. Complete only between epochs."""
        tensors = {f"network.{n}": t.detach() for n, t in (self.group.leaves | self.group.moving).items()}
        for name, memory in self.memory.items():
            for key, value in self.optimizer.state[memory].items():
                tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
        return tensors | {"step": torch.tensor(self.step)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Resume from a :meth:`state`."""
        with torch.no_grad():
            for name, tensor in (self.group.leaves | self.group.moving).items():
                tensor.copy_(state[f"network.{name}"])
        for name, memory in self.memory.items():
            suffix = f".{name}"
            stored = {k: v for k, v in state.items() if k.startswith("optimizer.") and k.endswith(suffix)}
            for key, value in stored.items():
                short = key.removeprefix("optimizer.").removesuffix(suffix)
                if "." not in short:
                    self.optimizer.state[memory][short] = value.to(self.group.device)
        self.step = int(state["step"])

    def _order(self, generators: Sequence[torch.Generator]) -> Tensor:
        """One epoch's batches: (steps, R, B) indices."""
        used = self.steps_per_epoch * self.batch_size
        orders = [torch.randperm(len(self.data), generator=g)[:used] for g in generators]
        batches: Tensor = torch.stack(orders).unflatten(1, (self.steps_per_epoch, self.batch_size)).transpose(0, 1)
        return batches


def fresh_states(build: Callable[[], nn.Module], seeds: Sequence[int]) -> list[StateDict]:
    """One freshly initialised network a seed; the global random state stays as it was."""
    states = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            states.append({n: t.detach().clone() for n, t in state_tensors(build()).items()})
    return states


@contextmanager
def _randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Global randomness from a seed, and afterwards as it was."""
    if device.type != "cpu":
        with forked_random(device):
            torch.manual_seed(seed)
            yield
        return
    before = torch.default_generator.get_state()  # fork_rng and manual_seed look at every device: 1 ms a step
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def _freeze_statistics(network: nn.Module, selected: set[str]) -> None:
    """Batch-norm layers whose statistics are not selected normalise as in evaluation."""
    for name, module in network.named_modules():
        statistics = {
            f"{name}.{n}".lstrip(".") for n, b in module.named_buffers(recurse=False) if b.is_floating_point()
        }
        if isinstance(module, nn.modules.batchnorm._NormBase) and statistics and not statistics & selected:
            module.eval()


def _get(network: nn.Module, name: str) -> Tensor:
    module, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(network.get_submodule(module), attribute)
    return tensor
