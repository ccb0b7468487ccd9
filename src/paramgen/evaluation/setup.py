"""What an evaluation is asked to measure, checked."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256

import torch

from paramgen import __version__
from paramgen.core.devices import usable_device
from paramgen.core.params import state_digest
from paramgen.core.samples import Samples
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError, require_positive
from paramgen.evaluation.baselines import all_baselines, check_baselines
from paramgen.evaluation.references import OF_RUNS, OF_TASKS
from paramgen.tasks import Task, TaskFamily


@dataclass(frozen=True)
class Setup:
    """Arguments of an evaluation, checked; as of :func:`paramgen.evaluation.evaluate.evaluate`.

    Args:
        zoo: What the generators learnt from.
        tasks: A single task, a family with unseen tasks, or None.
        samples: One set of networks a generator.
        baselines: Names of the baselines that are rows.
        n: Networks of every row, as asked for.
        seed: Of the baselines.
        device: Where networks run.
        train_items: `selected` is chosen on this many train items.
        aligned: Also measure distances after alignment.
        finetune: Count steps of fine-tuning.
        split: Items to score on.
    """

    zoo: Zoo
    tasks: TaskFamily | None
    samples: Sequence[Samples]
    baselines: Sequence[str]
    n: int
    seed: int
    device: torch.device
    train_items: int
    aligned: bool
    finetune: bool
    split: str

    @classmethod
    def of(
        cls,
        zoo: Zoo,
        tasks: TaskFamily | None,
        samples: Sequence[Samples] = (),
        baselines: Sequence[str] | None = None,
        n: int = 100,
        seed: int = 0,
        device: str = "cpu",
        train_items: int = 10_000,
        aligned: bool = False,
        finetune: bool = False,
        split: str = "test",
    ) -> "Setup":
        """Check the arguments of an evaluation and complete them.

        Raises:
            ParamgenError: n below 1, an unknown baseline, samples with the name of another row, a device that cannot be used; for a
                family: no unseen tasks, or aligned.
        """
        require_positive(n=n, train_images=train_items)
        tasks = _one_or_many(zoo, tasks, aligned)
        names = all_baselines(tasks, finetune) if baselines is None else list(baselines)
        check_baselines(names, tasks)
        references = OF_TASKS if tasks is not None and tasks.unseen else OF_RUNS
        check_names([s.name for s in samples], [*references, *names])
        return cls(zoo, tasks, samples, names, n, seed, usable_device(device), train_items, aligned, finetune, split)

    @property
    def each(self) -> int:
        """Networks of every row but the references: one for each unseen task, or at most n and at most as many as all samples have."""
        if self.tasks is not None and self.tasks.unseen:
            return len(self.tasks.unseen)
        return min([self.n, *(len(s.weights) for s in self.samples)])

    @cached_property
    def key(self) -> str:
        """A sha256 of all that rows depend on."""
        samples = [
            {
                "name": s.name,
                "info": asdict(s.info),
                "task": s.task,
                "networks": state_digest(
                    {k: t for k in ("weights", "identity", "run") if (t := getattr(s, k)) is not None}
                ),
            }
            for s in self.samples
        ]
        task = self.tasks.config() if isinstance(self.tasks, Task) else None
        options = [self.n, self.seed, self.device.type, self.train_items, self.aligned, self.finetune, self.split]
        everything = [__version__, self.zoo.meta, task, samples, list(self.baselines), options]
        return sha256(json.dumps(everything, sort_keys=True, default=str).encode()).hexdigest()


def check_names(generators: Sequence[str], others: Sequence[str]) -> None:
    """Refuse names of generators that another row has: rows are compared by their names.

    Args:
        generators: Names of the generators' rows.
        others: Of the references and baselines.

    Raises:
        ParamgenError: A name that another row has.
    """
    for i, name in enumerate(generators):
        if name in (*others, *generators[:i]):
            raise ParamgenError(f"generator {name!r} has the name of another row of the report; rename it")


def _one_or_many(zoo: Zoo, tasks: TaskFamily | None, aligned: bool) -> TaskFamily | None:
    """A single task itself, a family of several if some of its tasks are unseen."""
    if tasks is None or len(tasks.names) == 1:
        return None if tasks is None else tasks.task()
    if not tasks.unseen:
        raise ParamgenError(f"zoo {zoo.name!r} has no unseen tasks")
    if aligned:
        raise ParamgenError(f"zoo {zoo.name!r} has many tasks; aligned needs a zoo of one task")
    return tasks
