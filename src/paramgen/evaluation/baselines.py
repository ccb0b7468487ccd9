"""Every baseline in one table. A baseline is one entry, in the file that has its function.

Zeng et al. 2025 (arXiv:2506.07998) found that averages of a few checkpoints, or one Gaussian a weight, match what p-diff generates.
"""

import time
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import Generator

from paramgen.core.samples import SampleInfo
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, did_you_mean
from paramgen.evaluation.baseline import Baseline, Resource, Setting, draw_from
from paramgen.evaluation.condition_baselines import FROM_CONDITIONS
from paramgen.evaluation.merging import FROM_MERGING
from paramgen.evaluation.network_set import NetworkSet
from paramgen.evaluation.pool import Pool
from paramgen.evaluation.task_baselines import FROM_TASK
from paramgen.evaluation.weight_baselines import FROM_WEIGHTS
from paramgen.tasks import Classifies, TaskFamily

BASELINES: Mapping[str, Baseline] = MappingProxyType({**FROM_WEIGHTS, **FROM_TASK, **FROM_CONDITIONS, **FROM_MERGING})


def shown_in(*settings: Setting) -> list[str]:
    """Names of the baselines that evaluations of these kinds show."""
    return list(dict.fromkeys(name for s in settings for name, of in BASELINES.items() if s in of.shown))


def all_baselines(tasks: TaskFamily | None, finetune: bool = False) -> list[str]:
    """Names of the baselines that an evaluation shows unless others are requested: those that the zoo has everything for.

    Args:
        tasks: What the zoo's networks do; None for a zoo of weights alone.
        finetune: Whether steps of fine-tuning are counted.
    """
    settings: list[Setting] = ["one_task"]
    if tasks is not None and tasks.unseen:
        settings = ["unseen_tasks", "starts"] if finetune else ["unseen_tasks"]
    return [name for name in shown_in(*settings) if BASELINES[name].needs <= _resources(tasks)]


def check_baselines(names: Sequence[str], tasks: TaskFamily | None) -> None:
    """Refuse baselines that an evaluation cannot show.

    Raises:
        ParamgenError: An unknown name, or one of another kind of zoo.
    """
    of_family = tasks is not None and bool(tasks.unseen)
    available = shown_in("unseen_tasks", "starts", "requested") if of_family else shown_in("one_task", "requested")
    if unknown := [name for name in names if name not in available]:
        kind = " for a family of tasks" if of_family else ""
        raise ParamgenError(f"Unknown baseline {unknown[0]!r}{kind}. {did_you_mean(unknown[0], available)}")


def by_score(name: str) -> bool:
    """Whether a baseline chooses among the zoo's networks by their train scores."""
    return BASELINES[name].by_score


def baseline_networks(name: str, pool: Pool, zoo: Zoo, n: int, seed: int) -> NetworkSet:
    """What a baseline makes of a pool.

    Args:
        name: In :data:`BASELINES`.
        pool: What it may see.
        zoo: Says which tensors are generated.
        n: How many networks.
        seed: Of the evaluation; every baseline has a stream of its own.

    Raises:
        ParamgenError: The zoo lacks what the baseline needs.
    """
    baseline = BASELINES[name]
    if missing := baseline.needs - _resources(pool.tasks):
        raise ParamgenError(f"{name} needs {_WORDS[min(missing)]}, and zoo {zoo.name!r} has none")
    start = time.perf_counter()
    drawn = scores = None
    if baseline.predict is not None:
        scores = baseline.predict(pool)
    else:
        stream = Generator().manual_seed((seed + zlib.crc32(name.encode())) % 2**31)
        drawn = draw_from(baseline, pool, zoo.spec, n, stream)
    seconds = time.perf_counter() - start
    return NetworkSet(
        name,
        "baseline",
        "untrained" if baseline.untrained else "baseline",
        drawn,
        None if pool.new is None else pool.new.names,
        SampleInfo(uses_task_data="data" in baseline.needs),
        sample_seconds=None if drawn is None else seconds / len(drawn),
        scores=scores,
        noise=baseline.noise,
    )


_WORDS: Mapping[Resource, str] = MappingProxyType(
    {
        "network": "a task",
        "data": "a task with data",
        "conditions": "tasks with conditions",
        "classes": "classes to predict",
    }
)


def _resources(tasks: TaskFamily | None) -> set[Resource]:
    """What a zoo with these tasks has for baselines."""
    if tasks is None:
        return set()
    resources: set[Resource] = {"network"}
    resources |= {"data"} if tasks.has_data else set()
    resources |= {"classes"} if isinstance(tasks, Classifies) else set()
    return resources | ({"conditions"} if tasks.unseen else set())
