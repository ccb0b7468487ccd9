"""What to change in a fit that does not fit, each change measured by another dry run."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from paramgen.planning.dry_run import FitSettings
from paramgen.planning.plan import FitPlan, Machine, plan


class Advice(NamedTuple):
    """One more change, and the plan with it and those before it."""

    setting: str
    value: Any
    why: str
    plan: FitPlan


def advise(settings: FitSettings, machine: Machine) -> list[Advice]:
    """Changes to a fit until it fits, those first that do not change what is learned; all of them if it never does.

    Args:
        settings: Of a fit that does not fit.
        machine: Where it runs.
    """
    given: list[Advice] = []
    lowest: int | None = None
    for setting, value, why, changed, where in _changes(settings, machine):
        found = plan(changed(settings), where(machine))
        if lowest is not None and found.peak >= lowest:
            continue
        settings, machine, lowest = changed(settings), where(machine), found.peak
        given.append(Advice(setting, value, why, found))
        if found.misfit is None:
            break
    return given


def _same(machine: Machine) -> Machine:
    return machine


def _changes(settings: FitSettings, machine: Machine) -> Iterator[tuple[str, Any, str, Any, Any]]:
    """Settings, values, reasons, and what they do to the settings and the machine."""
    head = settings.arguments.get("head")
    if isinstance(head, Mapping) and head.get("kind") == "conv" and not head.get("checkpointing"):
        yield (
            "model.head.checkpointing", True, "the head's activations are computed again in the backward pass",
            lambda s: _with(s, ("head", "checkpointing"), True), _same,
        )  # fmt: skip
    if settings.float32_share:
        yield (
            "trainer.callbacks", [], "no float32 steps at the ends (Float32Ends)",
            lambda s: replace(s, float32_share=0.0), _same,
        )  # fmt: skip
    if settings.precision == "32-true":
        yield (
            "trainer.precision", "bf16-mixed", "activations take half",
            lambda s: replace(s, precision="bf16-mixed"), _same,
        )  # fmt: skip
    if settings.optimizer == "adamw" and "optimizer" in settings.arguments and machine.device.is_gpu:
        yield (
            "model.optimizer.name", "adamw8bit", "a quarter of Adam's state (needs bitsandbytes)",
            lambda s: _with(s, ("optimizer", "name"), "adamw8bit"), _same,
        )  # fmt: skip
    if machine.devices > 1 and machine.shards == 1:
        yield (
            "trainer.strategy", "fsdp2", f"weights, gradients and Adam's state divided by {machine.devices}",
            lambda s: s, lambda m: replace(m, strategy="fsdp2"),
        )  # fmt: skip
    per_step, batch = settings.arguments.get("tokens_per_step") or 0, settings.batch_size
    while per_step > 64 or batch > 1:
        if batch > 1:
            batch //= 2
            yield (
                "data.batch_size", batch, "fewer networks a step; accumulate_grad_batches keeps their number",
                lambda s, b=batch: replace(s, batch_size=b), _same,
            )  # fmt: skip
        if per_step > 64:
            per_step //= 2
            yield (
                "model.tokens_per_step", per_step, "fewer tokens a step",
                lambda s, n=per_step: _with(s, ("tokens_per_step",), n), _same,
            )  # fmt: skip


def _with(settings: FitSettings, path: tuple[str, ...], value: Any) -> FitSettings:
    """The settings with one argument of the backend changed."""

    def change(arguments: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        first, *rest = names
        inner = change(arguments.get(first) or {}, tuple(rest)) if rest else value
        return {**arguments, first: inner}

    return replace(settings, arguments=change(settings.arguments, path))
