"""paramgen: models that generate the weights of other models.

The public names are listed here, once. Each is imported when it is first used, so that ``import paramgen`` costs nothing. docs/python.md
describes them; tests/test_api.py keeps the list and the parameters of the functions stable.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("paramgen")  # the git tag, when it was built
except PackageNotFoundError:
    __version__ = "0+unknown"  # run from a source folder that is not installed

_HOMES = {
    # from a zoo to a report
    "Zoo": "paramgen.core.zoo:Zoo",
    "fit": "paramgen.api:fit",
    "evaluate": "paramgen.api:evaluate",
    "EvaluationReport": "paramgen.report.evaluation_report:EvaluationReport",
    "GeneratedNetworks": "paramgen.core.samples:GeneratedNetworks",
    "load_generator": "paramgen.generators.loading:load_generator",
    # the commands that write folders
    "collect_zoo": "paramgen.collect.single:main",
    "collect_tasks": "paramgen.collect.multi:main",
    "sample": "paramgen.cli.commands.sample:main",
    "compare": "paramgen.cli.commands.compare:main",
    "read_samples": "paramgen.core.samples:read_samples",
    # tasks
    "Task": "paramgen.tasks.base:Task",
    "TaskFamily": "paramgen.tasks.base:TaskFamily",
    "ArraySplit": "paramgen.tasks.arrays:ArraySplit",
    "Measured": "paramgen.tasks.score:Measured",
    "ScoreSpec": "paramgen.core.score:ScoreSpec",
    "ClassificationTask": "paramgen.tasks:ClassificationTask",
    "FieldTask": "paramgen.tasks:FieldTask",
    "RegressionTask": "paramgen.tasks:RegressionTask",
    "ScorerTask": "paramgen.tasks:ScorerTask",
    "TabularClassificationTask": "paramgen.tasks:TabularClassificationTask",
    "TextTask": "paramgen.tasks:TextTask",
    # backends
    "ParameterGenerator": "paramgen.generators.base:ParameterGenerator",
    "ParamBatch": "paramgen.generators.batches:ParamBatch",
    "SampleRequest": "paramgen.generators.sampling:SampleRequest",
    "Drawn": "paramgen.generators.sampling:Drawn",
    # codecs
    "ParamCodec": "paramgen.core.codec:ParamCodec",
    "FlatCodec": "paramgen.core.codec:FlatCodec",
    "TokenCodec": "paramgen.core.codec:TokenCodec",
    "ParamSpec": "paramgen.core.params:ParamSpec",
    "Block": "paramgen.core.blocks:Block",
    # mistakes
    "ParamgenError": "paramgen.errors:ParamgenError",
}

if TYPE_CHECKING:  # the same names for type checkers and editors
    from paramgen.api import evaluate, fit
    from paramgen.cli.commands.compare import main as compare
    from paramgen.cli.commands.sample import main as sample
    from paramgen.collect.multi import main as collect_tasks
    from paramgen.collect.single import main as collect_zoo
    from paramgen.core.blocks import Block
    from paramgen.core.codec import FlatCodec, ParamCodec, TokenCodec
    from paramgen.core.params import ParamSpec
    from paramgen.core.samples import GeneratedNetworks, read_samples
    from paramgen.core.score import ScoreSpec
    from paramgen.core.zoo import Zoo
    from paramgen.errors import ParamgenError
    from paramgen.generators.base import ParameterGenerator
    from paramgen.generators.batches import ParamBatch
    from paramgen.generators.loading import load_generator
    from paramgen.generators.sampling import Drawn, SampleRequest
    from paramgen.report.evaluation_report import EvaluationReport
    from paramgen.tasks import (
        ArraySplit,
        ClassificationTask,
        FieldTask,
        Measured,
        RegressionTask,
        ScorerTask,
        TabularClassificationTask,
        Task,
        TaskFamily,
        TextTask,
    )
else:

    def __getattr__(name: str) -> Any:
        """A public name, imported now and kept."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _HOMES[name].partition(":")
        globals()[name] = value = getattr(import_module(module), attribute)
        return value


__all__ = [
    "ArraySplit",
    "Block",
    "ClassificationTask",
    "Drawn",
    "EvaluationReport",
    "FieldTask",
    "FlatCodec",
    "GeneratedNetworks",
    "Measured",
    "ParamBatch",
    "ParamCodec",
    "ParamSpec",
    "ParameterGenerator",
    "ParamgenError",
    "RegressionTask",
    "SampleRequest",
    "ScoreSpec",
    "ScorerTask",
    "TabularClassificationTask",
    "Task",
    "TaskFamily",
    "TextTask",
    "TokenCodec",
    "Zoo",
    "collect_tasks",
    "collect_zoo",
    "compare",
    "evaluate",
    "fit",
    "load_generator",
    "read_samples",
    "sample",
]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted([*globals(), *_HOMES])
