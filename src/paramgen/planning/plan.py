"""The cost of a fit: what its memory holds, how long its steps take, and what has to change where it does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from paramgen.core.codec import ParamCodec
from paramgen.generators.batches import Residency, where_fits
from paramgen.planning.devices import EFFICIENCY, Device
from paramgen.planning.dry_run import DryRun, FitSettings, dry_run
from paramgen.planning.meter import Moment

STATES = ("weights", "gradients", "optimizer", "average")  # what FSDP divides among the processes
PART_ORDER = (*STATES, "gathered", "activations", "batch", "zoo", "buckets", "workspaces", "other")


@dataclass(frozen=True)
class Machine:
    """Where a fit runs.

    Args:
        device: Each of its devices.
        devices: Their number; one process each.
        strategy: ``auto``, ``ddp`` or another of Lightning's; ``fsdp2`` divides the states.
        residency: As ``data.residency``.
        efficiency: Share of the device's limits that a step reaches.
        ram: Bytes of the host's memory, shared by all processes.
    """

    device: Device
    devices: int = 1
    strategy: str = "auto"
    residency: Residency = "auto"
    efficiency: float = EFFICIENCY
    ram: float = 128e9

    @property
    def shards(self) -> int:
        """Processes that the states are divided among."""
        return self.devices if "fsdp" in self.strategy else 1


class Rate(NamedTuple):
    """The steps of one part of a fit.

    Args:
        name: Phase and precision.
        steps: Their number, if it is known.
        flops: Of a step, on one device.
        seconds: Of a step.
        peak: Bytes in memory at most.
    """

    name: str
    steps: int | None
    flops: int
    seconds: float
    peak: int


class Misfit(NamedTuple):
    """What first exceeds the memory."""

    what: str
    stage: str
    size: int  # bytes in memory then


class FitPlan(NamedTuple):
    """The cost of a fit, per device unless said otherwise. Sizes are in bytes.

    Args:
        zoo: Name of the zoo.
        networks: K, training networks.
        target: Generated numbers of a network.
        tokens: L.
        token_dim: D.
        parameters: Trained numbers of the generator.
        sizes: Sizes of weights, gradients, optimizer state, average and batch, each where it is largest.
        peak: Most bytes in memory.
        parts: What they are.
        stage: When that is.
        rates: The parts of the fit.
        hours: Of the fit; None where its steps are not known.
        zoo_bytes: The zoo's tokens in memory.
        residency: Where they are.
        read_once: Bytes read from disk before the first step.
        read: Bytes read from disk at each step.
        moved: Bytes copied to the device at each step.
        checkpoint: Bytes of a checkpoint.
        misfit: What first exceeds the memory; None if the fit fits.
    """

    zoo: str
    networks: int
    target: int
    tokens: int
    token_dim: int
    parameters: int
    sizes: Mapping[str, int]
    peak: int
    parts: Mapping[str, int]
    stage: str
    rates: list[Rate]
    hours: float | None
    zoo_bytes: int
    residency: Residency
    read_once: int
    read: int
    moved: int
    checkpoint: int
    misfit: Misfit | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        rates = [rate._asdict() for rate in self.rates]
        misfit = None if self.misfit is None else self.misfit._asdict()
        return {
            **self._asdict(),
            "sizes": dict(self.sizes),
            "parts": dict(self.parts),
            "rates": rates,
            "misfit": misfit,
        }


def plan(settings: FitSettings, machine: Machine) -> FitPlan:
    """The cost of a fit.

    Args:
        settings: Of the fit.
        machine: Where it runs.

    Raises:
        ParamgenError: The backend refuses the settings.
    """
    return assess(settings, machine, dry_run(settings, machine.device.is_gpu))


def assess(settings: FitSettings, machine: Machine, run: DryRun) -> FitPlan:
    """The cost of a fit whose dry run is done."""
    codec, zoo = settings.codec, settings.zoo
    zoo_bytes = 4 * zoo.networks * prod(codec.shape)
    residency = _residency(machine, zoo_bytes, run.sizes["weights"])
    fixed = _fixed(machine, run, zoo_bytes if residency == "device" else 0)
    x = run.sizes["batch"]
    best = max((_held(m, machine, fixed, run) for m in run.meter.moments()), key=lambda m: m.size)
    used = zoo.network_bytes * settings.batch_size * (settings.tokens or codec.shape[0]) // codec.shape[0]
    rates = [
        Rate(
            segment.name,
            segment.steps,
            segment.flops,
            sum(o.seconds(machine.device) for o in segment.operations) / machine.efficiency,
            max(_held(m, machine, fixed, run).size for m in run.meter.moments() if m.stage.startswith(segment.name)),
        )
        for segment in run.segments
    ]
    known = [rate.steps * rate.seconds for rate in rates if rate.steps is not None]
    return FitPlan(
        zoo=zoo.name,
        networks=zoo.networks,
        target=zoo.spec.numel,
        tokens=codec.shape[0],
        token_dim=codec.shape[1],
        parameters=run.parameters,
        sizes=run.sizes,
        peak=best.size,
        parts={name: best.parts[name] for name in PART_ORDER if best.parts.get(name)},
        stage=best.stage,
        rates=rates,
        hours=sum(known) / 3600 if len(known) == len(rates) else None,
        zoo_bytes=zoo_bytes,
        residency=residency,
        read_once=zoo.network_bytes * zoo.networks,
        read=min(used, zoo.network_bytes * settings.batch_size) if residency == "disk" else 0,
        moved=0 if residency == "device" or not machine.device.is_gpu else x * settings.accumulate,
        checkpoint=_checkpoint(settings, run, codec),
        misfit=_misfit(machine, fixed, run),
    )


def _fixed(machine: Machine, run: DryRun, zoo: int) -> dict[str, int]:
    """Bytes that are in memory all the time, besides what the dry run holds."""
    fixed = {"zoo": zoo, "workspaces": machine.device.workspaces}
    if machine.devices > 1 and machine.shards == 1:
        fixed["buckets"] = run.sizes["gradients"]  # DDP reduces copies of the gradients
    return fixed


def _held(moment: Moment, machine: Machine, fixed: Mapping[str, int], run: DryRun) -> Moment:
    """A moment of the dry run on one device of the machine."""
    if machine.shards == 1 and not any(fixed.values()):
        return moment._replace(parts=dict(moment.parts))
    parts = {
        name: -(-size // machine.shards) if name in STATES else size for name, size in moment.parts.items() if size
    }
    parts |= {name: size for name, size in fixed.items() if size}
    if machine.shards > 1:
        parts["gathered"] = run.gathered * (2 if "backward" in moment.stage else 1)  # their gradients too
    return moment._replace(size=sum(parts.values()), parts=parts)


def _misfit(machine: Machine, fixed: Mapping[str, int], run: DryRun) -> Misfit | None:
    """What first exceeds the memory, in the order of the fit."""
    for moment in run.meter.moments():
        held = _held(moment, machine, fixed, run)
        if held.size > machine.device.memory:
            return Misfit(moment.label, moment.stage, held.size)
    return None


def _residency(machine: Machine, size: int, weights: int) -> Residency:
    """Where the zoo's tokens are; as :func:`paramgen.generators.batches.resolve_residency` chooses on that machine."""
    if machine.residency != "auto":
        return machine.residency
    device = machine.device
    return where_fits(size, device.memory - weights if device.is_gpu else 0, machine.ram / machine.devices)


def _checkpoint(settings: FitSettings, run: DryRun, codec: ParamCodec) -> int:
    """Bytes of a checkpoint: weights, optimizer state, the averaged weights, the codec's statistics, the fixed tensors."""
    numbers = {"layer": (0, 0), "centre": (1, 0), "weight": (1, 1)}[codec.normalisation]
    assert codec.spec is not None
    statistics = sum(8 * (codec.spec.numel if each else len(codec.spec.tensors)) for each in numbers)
    stored = run.sizes["weights"] + run.sizes["optimizer"] + run.sizes["average"]
    return stored + statistics + settings.zoo.fixed
