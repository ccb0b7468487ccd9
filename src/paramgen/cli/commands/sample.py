"""``paramgen sample``: sample new networks from a generator's checkpoint."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from paramgen.core.command_line import command_line
from paramgen.core.counting import counted
from paramgen.core.hub import local_checkpoint
from paramgen.core.io import fingerprint
from paramgen.core.params import StateDict
from paramgen.core.progress import ProgressDisplay
from paramgen.core.sample_shards import merge_samples
from paramgen.core.sample_writer import PerNetwork, refuse_samples, write_samples
from paramgen.core.samples import INDEX
from paramgen.core.shard_progress import ShardProgress
from paramgen.core.shards import MERGE, Shard, finished, parse_shard
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, require_non_negative, require_positive
from paramgen.evaluation.recalibration import recalibrated
from paramgen.evaluation.unseen import conditions_to_draw, has_conditions, tasks_to_draw
from paramgen.generators.loading import check_conditional, load_generator
from paramgen.generators.prompts import beyond, parse_prompt
from paramgen.generators.sampling import Drawn, SampleRequest
from paramgen.generators.starts import start_tokens
from paramgen.nn.states import RandomState

if TYPE_CHECKING:  # it imports Lightning, which takes seconds
    from paramgen.generators.base import ParameterGenerator

_log = logging.getLogger(__name__)


def main(
    ckpt_path: str,
    n: int = 100,
    out: str = "samples",
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    temperature: float = 1.0,
    condition: list[float] | None = None,
    guidance_scale: float | None = None,
    state: int | RandomState | None = None,
    prompt: str | None = None,
    start: str | None = None,
    recalibrate: bool = False,
    trajectory: bool = False,
    zoo: str | None = None,
    per_task: int = 5,
    seen_tasks: int = 40,
    seed: int = 0,
    device: str = "cpu",
    overwrite: bool = False,
    trust: bool = False,
    shard: str | None = None,
) -> Path:
    """Sample new networks from a checkpoint. No YAML is needed, and no zoo except for the tasks of a family.

    Args:
        ckpt_path: Checkpoint written by ``paramgen fit``: a file, or a folder of shards; or ``hf://owner/name``.
        n: Number of networks, sampled in one batch.
        out: Output folder: samples.json and one complete safetensors file per network.
        scheduler: Solver, a diffusers scheduler such as DDPM, DDIM or DPMSolverMultistep. Default: the generator's own.
        num_inference_steps: Solver steps. Default: the generator's own.
        temperature: Factor on all noise. Below 1, samples are closer to the mean.
        condition: Condition vector of the task, for generators fitted with conditions.
        guidance_scale: Classifier-free guidance scale: 0 ignores the condition, 1 applies it as trained, above 1 amplifies it. Default: the
            generator's own.
        state: Permutation state: the index of a training run or checkpoint, random, or mixture (of two). Default: the generator's own
            choice.
        prompt: Score or loss to reach, for generators fitted with data.prompt: ``val.loss=0.1``; several separated by commas.
        start: Weights to start from, for generators fitted with data.start: a safetensors file, or the index of a network in the zoo that
            the generator was fitted on. Several are separated by commas; the networks are spread over them.
        recalibrate: Measure the batch-norm statistics of the samples again, on train items of the zoo's task. The samples are marked as
            having used the task's data.
        trajectory: Save the denoising trajectory of the first networks in trajectory.safetensors; the report plots it.
        zoo: Zoo of a family of tasks. Sample networks for its tasks, from their conditions, instead of `n` networks. Of a zoo of one task
            with conditions, such as labelled fields: sample `n` networks with the conditions of held-out networks.
        per_task: Number of networks per unseen task of `zoo`.
        seen_tasks: Number of seen tasks of `zoo` to sample `per_task` networks for as well.
        seed: Seed of the samples.
        device: Device: cpu, cuda, cuda:1, mps.
        overwrite: Replace existing samples in `out`.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.
        shard: Sample only part i of N of the networks: ``i/N``, i from 1, for several processes or machines; the networks are those of
            one process. Each writes a folder in `out`. ``auto`` reads i and N from the variables of torchrun or SLURM; they are not read
            otherwise. ``merge`` merges the shards.

    Raises:
        ParamgenError: n or per_task below 1; an unknown checkpoint, scheduler or state; no trajectory to save; no batch norm to
            recalibrate; existing samples.
    """
    command = command_line("paramgen sample", main, locals())
    part, target = parse_shard(shard), Path(out)
    if shard == MERGE:
        return merge_samples(target, command, overwrite)
    if zoo is not None and condition is not None:
        raise ParamgenError("both zoo and condition were given; the zoo's tasks have their own conditions")
    require_positive(n=n, num_inference_steps=num_inference_steps, per_task=per_task)
    require_non_negative(temperature=temperature, seen_tasks=seen_tasks)
    place = target if part is None else part.folder(target)
    for folder in {target, place}:
        refuse_samples(folder, overwrite)
    checkpoint = local_checkpoint(ckpt_path)
    torch.set_flush_denormal(True)
    model = load_generator(checkpoint, device, trust)
    aims = _aims(n, condition) if zoo is None else _aims_of_zoo(model, Zoo(zoo, trust), n, per_task, seen_tasks)
    rows = None if part is None else _rows(part, aims.n)
    request = SampleRequest(
        n=aims.n,
        condition=aims.condition,
        scheduler=scheduler,
        num_inference_steps=num_inference_steps,
        temperature=temperature,
        guidance_scale=guidance_scale,
        state=state,
        prompt=None if prompt is None else _prompt(model, prompt),
        start=None if start is None else start_tokens(model, start, aims.n, trust),
        keep_trajectory=trajectory,
        generator=torch.Generator(device).manual_seed(seed),
        rows=rows,
    )
    torch.manual_seed(seed)
    begun = time.perf_counter()
    drawn = _draw(model, request, part, target)
    networks = _complete(model, drawn, recalibrate, trust)
    seconds = time.perf_counter() - begun
    info = replace(
        model.describe(request, drawn, seconds),
        checkpoint=ckpt_path,
        checkpoint_sha256=fingerprint(Path(checkpoint)),
        seed=seed,
        condition=aims.recorded,
        start=start,
        uses_task_data=model.uses_task_data or recalibrate,
        command=command,
    )
    tasks = None if aims.tasks is None else [aims.tasks[row] for row in request.wanted]
    each = PerNetwork(drawn.identity, drawn.run, tasks, rows)
    write_samples(place, networks, info, each, overwrite, _weights(model, drawn.trajectory))
    print(f"{counted(len(networks), 'network')} in {seconds:.2f} s, in {place}")
    if part is not None:
        print(finished(out, part, INDEX))
    return place


class _Aims(NamedTuple):
    """What networks are drawn for.

    Args:
        n: How many.
        condition: (n, C), or None for networks of any task.
        recorded: The condition in samples.json; not for a family, whose tasks are recorded by name.
        tasks: n names of tasks, for a family.
    """

    n: int
    condition: Tensor | None
    recorded: list[Any] | None
    tasks: list[str] | None = None


def _aims(n: int, condition: list[float] | None) -> _Aims:
    """The same condition for all, or none."""
    return _Aims(n, None if condition is None else torch.tensor(condition).expand(n, -1), condition)


def _aims_of_zoo(model: "ParameterGenerator", zoo: Zoo, n: int, per_task: int, seen_tasks: int) -> _Aims:
    """The tasks of a family, with their conditions; for a zoo of one task the conditions of its networks."""
    check_conditional(model, zoo)
    if has_conditions(zoo):
        given = conditions_to_draw(zoo, n)
        return _Aims(n, given, given.tolist())
    tasks, given = tasks_to_draw(zoo, per_task, seen_tasks)
    return _Aims(len(tasks), given, None, tasks)


def _rows(part: Shard, n: int) -> list[int]:
    """The networks of a shard, by their place among all n."""
    part.require(n, "networks")
    return part.rows(n)


def _prompt(model: "ParameterGenerator", text: str) -> dict[str, float]:
    """The scores to reach; logs those beyond what the generator was fitted on."""
    scores = parse_prompt(text)
    for line in beyond(scores, model.prompts):
        _log.info(line)
    return scores


def _draw(model: "ParameterGenerator", request: SampleRequest, part: Shard | None, out: Path) -> Drawn:
    """The networks of a request, under a bar that counts them as the solver's steps go by."""
    wanted = len(request.wanted)
    with ProgressDisplay() if part is None else ShardProgress(part, out) as bar:
        bar.expect("sample", wanted)
        bar.begin("sample", wanted)
        return model.draw(replace(request, progress=lambda done: bar.update(round(done * wanted))))


def _complete(model: "ParameterGenerator", drawn: Drawn, recalibrate: bool, trust: bool) -> list[StateDict]:
    """The networks as complete state dicts, with statistics of batch norm measured again on request."""
    networks = model.decode(drawn.tokens)
    return recalibrated(Zoo(model.zoo_info["path"], trust), networks, model.device) if recalibrate else networks


def _weights(model: "ParameterGenerator", trajectory: Tensor | None) -> Tensor | None:
    """Saved states (S, m, L, D) as weights (S, m, P), or None."""
    if trajectory is None:
        return None
    codec = model.codec
    assert codec is not None
    assert codec.spec is not None
    return torch.stack([codec.spec.flatten_many(codec.decode_many(tokens.float().cpu())) for tokens in trajectory])
