"""A plan in the terminal."""

from rich.console import Console
from rich.table import Table

from paramgen.core.counting import counted, size_text
from paramgen.planning.advice import Advice
from paramgen.planning.dry_run import FitSettings
from paramgen.planning.plan import FitPlan, Machine, Rate


def show_plan(console: Console, plan: FitPlan, settings: FitSettings, machine: Machine, advice: list[Advice]) -> None:
    """Print one table, then what does not fit and what to change.

    Args:
        console: Where to print.
        plan: The plan.
        settings: Of the fit.
        machine: Where it would run.
        advice: Changes, if it does not fit.
    """
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=False)
    for name, value in rows(plan, settings, machine):
        table.add_row(name, value)
    console.print(table)
    console.print(plan_verdict(plan, machine), style="red" if plan.misfit else "green")
    for step in advice:
        console.print(
            f"  --{step.setting} {step.value}: {size_text(step.plan.peak)}. {step.why[0].upper()}{step.why[1:]}."
        )
    if advice and advice[-1].plan.misfit is not None:
        console.print("  No change tried here makes it fit. Use more devices, or a smaller generator.")
    elif advice:
        console.print("  Together these changes fit.")


def rows(plan: FitPlan, settings: FitSettings, machine: Machine) -> list[tuple[str, str]]:
    """Names and values of the table."""
    parts = ", ".join(f"{name} {size_text(size)}" for name, size in plan.parts.items())
    sizes = ", ".join(f"{name} {size_text(plan.sizes[name])}" for name in ("weights", "gradients", "optimizer"))
    networks = f"{counted(plan.networks, 'network')} of {counted(plan.target, 'number')}"
    return [
        ("generator", f"{settings.backend.__name__}, {plan.parameters:,} trained parameters"),
        ("zoo", f"{plan.zoo}: {networks}, {plan.tokens:,} x {plan.token_dim:,}"),
        ("machine", f"{machine.devices} x {machine.device.title}, {size_text(machine.device.memory)} each ({machine.device.source})"),
        ("states", sizes),
        ("peak memory", f"{size_text(plan.peak)} ({plan.stage})"),
        ("of this", parts),
        *((f"step, {rate.name}" if len(plan.rates) > 1 else "step", step(rate)) for rate in plan.rates),
        ("efficiency", f"{machine.efficiency:g} of the device's limits (arithmetic, bandwidth or launch of each operation)"),
        ("fit", fit_time(plan, settings, machine)),
        ("zoo's tokens", f"{size_text(plan.zoo_bytes)} in {WHERE[plan.residency]}; {size_text(plan.read_once)} read once"),
        ("a step reads", f"{size_text(plan.read)} from disk, {size_text(plan.moved)} copied to the device"),
        ("checkpoint", size_text(plan.checkpoint)),
    ]  # fmt: skip


WHERE = {"device": "the device's memory", "ram": "RAM", "disk": "files, read in part"}


def step(rate: Rate) -> str:
    """One kind of step."""
    return (
        f"{rate.flops / 1e12:.3g} TFLOP, {rate.seconds:.3g} s ({1 / rate.seconds:.3g} a second), {size_text(rate.peak)}"
    )


def fit_time(plan: FitPlan, settings: FitSettings, machine: Machine) -> str:
    """Steps and hours."""
    if plan.hours is None:
        return "no end: set trainer.max_steps"
    networks = settings.batch_size * settings.accumulate * machine.devices
    steps = f"{counted(settings.max_steps, 'step')} of {counted(networks, 'network')}"
    return f"{steps}, {hours(plan.hours)} without communication and waiting for data"


def hours(number: float) -> str:
    """A duration."""
    return (
        f"{number:.3g} hours"
        if number >= 1
        else f"{60 * number:.3g} minutes"
        if number > 1 / 60
        else f"{3600 * number:.3g} seconds"
    )


def plan_verdict(plan: FitPlan, machine: Machine) -> str:
    """Whether it fits."""
    if plan.misfit is None:
        return f"Fits: {100 * plan.peak / machine.device.memory:.0f} % of {machine.device.title}."
    what, stage, size = plan.misfit
    return f"Does not fit. First: {what}, {stage}: {size_text(size)} of {size_text(machine.device.memory)}. Changes, one after another:"
