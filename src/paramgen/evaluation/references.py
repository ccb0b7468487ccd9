"""The rows that others are compared with; the first is the reference of them all.

For one task: the zoo's own networks, then those of held-out runs. For a family: networks trained on the unseen tasks themselves, then what
all adapters started from, and adapters that do nothing.
"""

import torch
from torch import Tensor

from paramgen.collect.multi import POOLED
from paramgen.core.params import StateDict
from paramgen.core.samples import SampleInfo
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation.network_set import HELDOUT, NetworkSet
from paramgen.evaluation.results import Role
from paramgen.evaluation.zoo_weights import ZooWeights
from paramgen.tasks import TaskFamily
from paramgen.tasks.lora import is_magnitude, plain_weights

OF_RUNS = ("zoo", HELDOUT)
"""Names of the rows that can be references of one task."""
OF_TASKS = ("direct", "start", POOLED, "no adapter")
"""Of those of a family."""


def references(zoo: Zoo, weights: ZooWeights, tasks: TaskFamily | None) -> list[NetworkSet]:
    """The reference rows of an evaluation.

    Args:
        zoo: What the generators learnt from.
        weights: Its networks.
        tasks: What they do; None for a zoo of weights alone.

    Raises:
        ParamgenError: The zoo holds no network of an unseen task.
    """
    if tasks is None or not tasks.unseen:
        return _of_runs(zoo, weights)
    return _of_tasks(zoo, weights, tasks)


def _of_runs(zoo: Zoo, weights: ZooWeights) -> list[NetworkSet]:
    """The zoo's own networks, and the held-out runs' where there are any."""
    own = NetworkSet("zoo", "reference", "zoo", weights.training, info=_collected(zoo))
    if not len(weights.heldout):
        return [own]
    return [own, NetworkSet(HELDOUT, "reference", "heldout", weights.heldout)]


def _of_tasks(zoo: Zoo, weights: ZooWeights, tasks: TaskFamily) -> list[NetworkSet]:
    """Networks trained on the tasks themselves; the start of all where it was trained; adapters that do nothing."""
    trained = [i for i, entry in enumerate(zoo.entries) if entry.task in set(tasks.unseen)]
    names = [str(zoo.entries[i].task) for i in [*trained, *zoo.indices("train")]]
    if missing := [task for task in tasks.unseen if task not in names]:
        raise ParamgenError(
            f"zoo {zoo.name!r} holds no network of the unseen task {missing[0]!r}; collect it with heldout=true"
        )
    direct = torch.cat([zoo.matrix(trained).to(weights.training.device), weights.training])
    rows = [NetworkSet("direct", "reference", "direct", direct, names, _collected(zoo))]
    if (start := zoo.start()) is not None:
        pooled = zoo.meta["recipe"].get("start_task") == POOLED
        rows.append(_everywhere(POOLED if pooled else "start", "start", zoo.spec.flatten(start), tasks))
    if tasks.lora is not None:
        rows.append(_everywhere("no adapter", "no_adapter", zoo.spec.flatten(neutral(zoo, tasks)), tasks))
    return rows


def neutral(zoo: Zoo, tasks: TaskFamily) -> StateDict:
    """Adapters that change nothing: zeros, and with DoRA the lengths of the plain network's rows."""
    adapters = {t.name: torch.zeros(t.shape) for t in zoo.spec.tensors}
    if tasks.lora is None or not tasks.lora.dora:
        return adapters
    with torch.random.fork_rng(devices=[]):
        fresh = tasks.adapted(plain_weights(zoo.base())).state_dict()
    return {name: fresh[name] if is_magnitude(name) else zero for name, zero in adapters.items()}


def _everywhere(name: str, role: Role, network: Tensor, tasks: TaskFamily) -> NetworkSet:
    """One network (P,) on every task."""
    names = [*tasks.unseen, *(str(task) for task in tasks.seen)]
    return NetworkSet(name, "reference", role, network.expand(len(names), -1), names)


def _collected(zoo: Zoo) -> SampleInfo:
    return SampleInfo(fit_seconds=zoo.meta.get("seconds"))
