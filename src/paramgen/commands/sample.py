"""``paramgen sample``: new networks from a fitted generator's checkpoint alone."""

import inspect
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Literal

import torch

from paramgen.diffusion import Trajectory
from paramgen.errors import ParamgenError, not_negative, positive
from paramgen.files import sha256
from paramgen.generator import ParameterGenerator, check_conditional, load_generator
from paramgen.samples import SampleInfo, refuse_samples, write_samples
from paramgen.unseen import TaskConditions, tasks_to_draw
from paramgen.zoo import Zoo


def main(
    ckpt_path: str,
    n: int = 100,
    out: str = "samples",
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    temperature: float = 1.0,
    condition: list[float] | None = None,
    guidance_scale: float | None = None,
    state: int | Literal["random", "mixture"] | None = None,
    trajectory: bool = False,
    zoo: str | None = None,
    per_task: int = 5,
    seen_tasks: int = 40,
    seed: int = 0,
    device: str = "cpu",
    overwrite: bool = False,
) -> None:
    """Draw new networks from a checkpoint; needs neither YAML nor zoo, but for the tasks of a family.

    Args:
        ckpt_path: Checkpoint written by ``paramgen fit``.
        n: How many networks, drawn all at once.
        out: Folder for them: samples.json and one complete safetensors file each.
        scheduler: Solver, a diffusers scheduler such as DDPM, DDIM or DPMSolverMultistep; the backend's own when left out.
        num_inference_steps: Solver steps; the backend's own when left out.
        temperature: Factor of all noise; below 1 samples are closer to the mean.
        condition: Numbers that describe the task, for generators fitted with conditions.
        guidance_scale: How far to follow the condition: 0 not at all, 1 as it was taught, above 1 further; the backend's own when left out.
        state: Which of the states that the generator was fitted with (a run's or a checkpoint's, by number), random or mixture; the
            backend's own choice when left out.
        trajectory: Keep the first networks on their way from noise too, in trajectory.safetensors; the report draws them.
        zoo: A zoo of many tasks: networks for its tasks are drawn, from their conditions, instead of `n`.
        per_task: How many for each of its unseen tasks.
        seen_tasks: And for each of its first so many seen tasks.
        seed: Of the draw.
        device: cpu, cuda, cuda:1, mps.
        overwrite: Replace samples that are already there.

    Raises:
        ParamgenError: n or per_task below 1; no such checkpoint, scheduler or state; no trajectory to keep; samples already there.
    """
    positive(n=n, num_inference_steps=num_inference_steps, per_task=per_task)
    not_negative(temperature=temperature)
    torch.set_flush_denormal(True)
    try:
        model = load_generator(ckpt_path, device)
        noise = torch.Generator(device).manual_seed(seed)
    except RuntimeError as error:
        raise ParamgenError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    if not overwrite:
        refuse_samples(out)
    if condition is not None and not model.hparams.get("cond_dim"):
        raise ParamgenError(
            f"a condition was given, but this {type(model).__name__} was fitted on a zoo without conditions"
        )
    if zoo is not None and condition is not None:
        raise ParamgenError("both zoo and condition were given; the zoo's tasks have their own conditions")
    asked = None if zoo is None else _tasks(model, Zoo(zoo), per_task, seen_tasks)
    if guidance_scale is not None:
        if (condition is None and asked is None) or not hasattr(model, "guidance_scale"):
            raise ParamgenError("guidance_scale is for a condition, and for generators that take one")
        model.guidance_scale = guidance_scale
    options: dict[str, Any] = {} if state is None else {"state": state}
    if options and "state" not in inspect.signature(model.sample_tokens).parameters:
        raise ParamgenError(f"state {state!r} was asked for, but a {type(model).__name__} has no states to sample from")
    way = Trajectory()
    if trajectory:
        if "trajectory" not in inspect.signature(model.sample_tokens).parameters:
            raise ParamgenError(f"a {type(model).__name__} shows no trajectory of its sampling")
        options["trajectory"] = way
    torch.manual_seed(seed)
    tiled = None if condition is None else torch.tensor(condition, device=device).expand(n, -1)
    if asked is not None:
        n, tiled = len(asked.names), asked.condition.to(device)
    start = time.perf_counter()
    networks = model.sample(
        n,
        tiled,
        scheduler=scheduler,
        num_inference_steps=num_inference_steps,
        temperature=temperature,
        generator=noise,
        **options,
    )
    seconds = time.perf_counter() - start
    info = SampleInfo(
        generator=type(model).__name__,
        checkpoint=ckpt_path,
        checkpoint_sha256=sha256(Path(ckpt_path)),
        zoo=model.zoo_info["name"],
        seed=seed,
        condition=condition,
        scheduler=scheduler,
        num_inference_steps=num_inference_steps,
        temperature=temperature,
        fit_seconds=model.fit_seconds,
        sample_seconds=seconds,
        generator_params=sum(p.numel() for p in model.parameters()),
        generator_bytes=model.stored_bytes(),
        uses_task_data=model.uses_task_data,
        command=shlex.join(["paramgen", *sys.argv[1:]]),
        fit_command=model.fit_command,
        fit_config=model.fit_config,
        history=model.history,
    )
    folder = write_samples(
        out,
        networks,
        info,
        model.identities(),
        overwrite,
        _weights(model, way),
        model.identity_runs(),
        asked.names if asked else None,
    )
    print(f"{n} networks in {seconds:.2f} s, in {folder}")


def _tasks(model: ParameterGenerator, zoo: Zoo, per_task: int, seen_tasks: int) -> TaskConditions:
    """The task and condition of every network to draw for a zoo of many tasks."""
    check_conditional(model, zoo)
    return tasks_to_draw(zoo, per_task, seen_tasks)


def _weights(model: ParameterGenerator, way: Trajectory) -> torch.Tensor | None:
    """The kept states as weights (S, m, P); None where there are none."""
    if not way.states:
        return None
    codec = model.codec
    assert codec is not None
    assert codec.spec is not None
    return torch.stack([codec.spec.flatten_many(codec.decode_many(tokens.float().cpu())) for tokens in way.states])
