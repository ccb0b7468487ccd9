"""The package from Python: the commands as functions that return their results.

>>> from paramgen.api import ClassificationTask, collect, evaluate, fit, Zoo
>>> zoo = collect(ClassificationTask(), "zoo", runs=3, heldout_runs=1)
>>> generator = fit("pdiff_digits_mlp", {"data.zoo": "zoo"})
>>> networks = generator.sample(100)  # state dicts that load with strict=True
"""

from collections.abc import Mapping
from typing import Any

from paramgen.cli import lightning
from paramgen.cli.commands.compare import main as compare
from paramgen.cli.commands.evaluate import main as evaluate
from paramgen.cli.commands.sample import main as sample
from paramgen.collect.multi import main as collect_tasks
from paramgen.collect.single import main as collect
from paramgen.core.command_line import words
from paramgen.core.samples import read_samples
from paramgen.core.score import ScoreSpec
from paramgen.core.zoo import Zoo
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.loading import load_generator
from paramgen.tasks import ClassificationTask, FieldTask, RegressionTask, TabularClassificationTask, Task, TextTask

__all__ = [
    "ClassificationTask",
    "FieldTask",
    "ParameterGenerator",
    "RegressionTask",
    "ScoreSpec",
    "TabularClassificationTask",
    "Task",
    "TextTask",
    "Zoo",
    "collect",
    "collect_tasks",
    "compare",
    "evaluate",
    "fit",
    "load_generator",
    "read_samples",
    "sample",
]


def fit(config: str, settings: Mapping[str, Any] | None = None) -> ParameterGenerator:
    """Train a generator, as ``paramgen fit`` does.

    Args:
        config: A YAML file, or the name of a shipped config.
        settings: What to change, by dotted names: ``{"data.zoo": "zoo", "model.optimizer.lr": 3e-4, "trainer.max_steps": 500}``.

    Returns:
        The fitted generator, ready to sample.

    Raises:
        ParamgenError: A mistake in a config, a zoo or a setting.
    """
    model = lightning.main(["fit", "--config", config, *words(settings or {})]).model
    assert isinstance(model, ParameterGenerator)
    return model.cpu().eval()
