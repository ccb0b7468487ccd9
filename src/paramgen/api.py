"""``paramgen.fit`` and ``paramgen.evaluate``: the commands for values in memory.

>>> import paramgen
>>> zoo = paramgen.Zoo("digits_mlp_trajectory")
>>> generator = paramgen.fit("pdiff_digits_mlp", zoo=zoo)
>>> networks = generator.sample(100)  # state dicts that load with strict=True
>>> report = paramgen.evaluate(zoo, networks)
>>> report  # a table
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from paramgen.cli.commands.evaluate import baseline_names, tasks_to_score
from paramgen.cli.given import require_fit
from paramgen.core.command_line import words
from paramgen.core.paths import distinct_names
from paramgen.core.samples import GeneratedNetworks, Samples, read_samples, samples_of
from paramgen.core.zoo import Zoo
from paramgen.errors import require_positive
from paramgen.evaluation import evaluate as evaluation
from paramgen.report.evaluation_report import EvaluationReport
from paramgen.tasks import Task

if TYPE_CHECKING:  # it takes seconds to import, and only a fit needs it
    from paramgen.generators.base import ParameterGenerator

Networks = str | Path | Sequence[Mapping[str, Tensor]]
_log = logging.getLogger(__name__)


def fit(
    config: str, settings: Mapping[str, Any] | None = None, *, zoo: Zoo | str | Path | None = None
) -> "ParameterGenerator":
    """Train a generator, as ``paramgen fit`` does.

    Args:
        config: A YAML file, or the name of a shipped config.
        settings: What to change, by dotted names: ``{"model.optimizer.lr": 3e-4, "trainer.max_steps": 500}``.
        zoo: What it learns from: a zoo, its folder or its name. Default: the config's.

    Returns:
        The fitted generator, ready to sample. Its checkpoint is where ``settings["checkpoint.dirpath"]`` says; without it the path is
        printed.

    Raises:
        ParamgenError: A mistake in a config, a zoo or a setting.
    """
    given: dict[str, Any] = {} if zoo is None else {"data.zoo": str(zoo.path if isinstance(zoo, Zoo) else zoo)}
    if isinstance(zoo, Zoo) and zoo.trust:
        given["data.trust"] = "true"
    line = ["--config", config, *words({**given, **(settings or {})})]
    require_fit("fit", line)
    from paramgen.cli import lightning
    from paramgen.generators.base import ParameterGenerator

    model = lightning.main(["fit", *line]).model
    assert isinstance(model, ParameterGenerator)
    return model.cpu().eval()


def evaluate(
    zoo: Zoo | str | Path,
    networks: Networks | Sequence[str | Path] | Mapping[str, Networks] | None = None,
    out: str | Path | None = None,
    n: int = 100,
    baselines: str | list[str] = "all",
    seed: int = 0,
    device: str = "cpu",
    train_images: int = 10_000,
    aligned: bool = False,
    finetune: bool = False,
    partial: bool = False,
    trust: bool = False,
    task: Task | None = None,
) -> EvaluationReport:
    """Compare generated networks with the zoo, held-out runs and baselines, as ``paramgen evaluate`` does.

    Args:
        zoo: What the generators learnt from: a zoo, its folder or its name.
        networks: State dicts, as ``generator.sample`` returns them, or a folder of them; several folders, or several of both by name:
            ``{"p-diff": networks, "mine": "samples"}``. Default: evaluate only the zoo and the baselines.
        out: Folder for results.json, report.html and the plots. Default: write nothing.
        n: Number of networks per row. Ignored for families of tasks, which use all samples.
        baselines: ``all``, ``none``, or a list of names.
        seed: Seed of the baselines.
        device: Device to run the networks on, for example cuda.
        train_images: Number of train images used to choose the ``selected`` network.
        aligned: Also measure distances after alignment. This detects permuted copies.
        finetune: Also count the fine-tuning steps that each row's networks need to match the zoo on val. Slow.
        partial: Accept the incomplete output of an interrupted ``paramgen sample``.
        trust: Run code of classes that the zoo names and that are not part of paramgen. Use only for files from people you trust.
        task: Score networks by this task instead of the zoo's own.

    Returns:
        The report, which shows itself. A network that a scoring function raised an error on has no score, and a warning says so.

    Raises:
        ParamgenError: n below 1, no such zoo or folder, an unknown baseline, networks of another architecture.
    """
    require_positive(n=n, train_images=train_images)
    opened = zoo if isinstance(zoo, Zoo) else Zoo(zoo, trust)
    tasks = tasks_to_score(opened, task)
    limit = None if tasks is not None and tasks.unseen else n
    samples = [_samples(name, given, opened, limit, partial) for name, given in _by_name(networks).items()]
    errors: list[str] = []
    results = evaluation.evaluate(
        opened,
        tasks,
        samples,
        baseline_names(baselines),
        n,
        seed,
        device,
        train_images,
        aligned,
        finetune,
        errors=errors,
    )
    if task is not None:
        results = replace(results, task=task.config())
    for error in errors:
        _log.warning(error)
    report = EvaluationReport(results, opened, samples)
    if out is not None:
        report.save(out)
    return report


def _by_name(networks: Networks | Sequence[str | Path] | Mapping[str, Networks] | None) -> Mapping[str, Networks]:
    """Sets of networks by their names in the report."""
    if networks is None or isinstance(networks, Mapping):
        return networks or {}
    if isinstance(networks, str | Path):
        return {distinct_names([networks])[0]: networks}
    folders = [given for given in networks if isinstance(given, str | Path)]
    if folders:
        return dict(zip(distinct_names(folders), folders, strict=True))
    made = networks.info.generator if isinstance(networks, GeneratedNetworks) else None
    return {made or "samples": cast("Sequence[Mapping[str, Tensor]]", networks)}


def _samples(name: str, networks: Networks, zoo: Zoo, limit: int | None, partial: bool) -> Samples:
    if isinstance(networks, str | Path):
        return read_samples(networks, zoo, limit, partial, name)
    return samples_of(networks, zoo, name, limit)
