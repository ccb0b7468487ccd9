"""Tables that come with scikit-learn: regression (RMSE) and classification (accuracy) by small networks.

M: rows of a split. F: columns. A fixed quarter of the rows is the test split; ``val`` is carved from the others by a seed.
"""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from paramgen.core.score import ScoreSpec
from paramgen.errors import ParamgenError, did_you_mean, require_fraction, require_non_negative, require_positive
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.score import Classifies, Measured, at_least_float32
from paramgen.tasks.vision.datasets import stratified
from paramgen.tasks.vision.networks import MLP

REGRESSION = ("diabetes",)
CLASSIFICATION = ("breast_cancer", "iris", "wine")
TEST_FRACTION = 0.25


class Table(NamedTuple):
    """The rows of a table by split, as indices, with its columns and targets.

    Args:
        columns: (M, F), standardised by the rows that are not test rows.
        targets: (M,) as scikit-learn gives them: numbers, or classes.
        rows: Indices of each split's rows.
    """

    columns: Tensor
    targets: Tensor
    rows: dict[str, Tensor]


class TabularTask(Task):
    """A multilayer perceptron on one of scikit-learn's tables."""

    dataset: str
    hidden: list[int]
    val_fraction: float
    split_seed: int

    def __init__(
        self, available: Sequence[str], dataset: str, hidden: Sequence[int], val_fraction: float, split_seed: int
    ) -> None:
        if dataset not in available:
            raise ParamgenError(f"Unknown table {dataset!r}. {did_you_mean(dataset, available)}")
        require_fraction(val_fraction=val_fraction)
        require_non_negative(split_seed=split_seed)
        for width in hidden:
            require_positive(hidden=width)
        self.dataset, self.hidden = dataset, list(hidden)
        self.val_fraction, self.split_seed = val_fraction, split_seed

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of values that the network returns."""

    @abstractmethod
    def targets(self, values: Tensor) -> Tensor:
        """What the network learns, (M, ...), of scikit-learn's targets (M,)."""

    @abstractmethod
    def strata(self, values: Tensor) -> Tensor:
        """Labels (M,) whose shares all splits keep, of scikit-learn's targets (M,)."""

    def build(self) -> nn.Module:
        """The plain network, freshly initialised from torch's global seed."""
        return MLP(self.outputs, (1, 1, self.table.columns.shape[1]), self.hidden)

    def data(self, split: str) -> SplitData:
        """Standardised columns (M, F) and targets (M, ...) of a split."""
        self.check([None], split)
        rows = self.table.rows[split]
        return ArraySplit(self.table.columns[rows], self.targets(self.table.targets[rows]))

    @cached_property
    def table(self) -> Table:
        """The table."""
        from sklearn import datasets

        raw: Any = getattr(datasets, f"load_{self.dataset}")()
        columns, targets = torch.from_numpy(raw.data).float(), torch.from_numpy(raw.target)
        strata = self.strata(targets)
        test, others = stratified(strata, round(TEST_FRACTION * len(targets)), seed=0)
        count = max(1, round(self.val_fraction * len(others)))
        val, train = stratified(strata[others], count, self.split_seed)
        seen = columns[others]
        rows = {"train": others[train], "val": others[val], "test": test}
        return Table((columns - seen.mean(0)) / seen.std(0), targets, rows)


class RegressionTask(TabularTask):
    """Predict a number from the columns of a table. The score is the RMSE in the number's own unit; lower is better.

    Args:
        dataset: ``diabetes``: 442 patients, ten measurements, progression of the disease after a year (25 to 346).
        hidden: Widths of the hidden layers.
        val_fraction: Share of the rows that are not test rows that becomes the val split.
        split_seed: Seed of the val split.

    Raises:
        ParamgenError: Unknown table, a width below 1, or a fraction that is not between 0 and 1.
    """

    score = ScoreSpec("RMSE", unit="plain", higher_is_better=False, margin=1.0, axis="linear")

    def __init__(
        self, dataset: str = "diabetes", hidden: Sequence[int] = (16,), val_fraction: float = 0.15, split_seed: int = 0
    ) -> None:
        super().__init__(REGRESSION, dataset, hidden, val_fraction, split_seed)

    @property
    def outputs(self) -> int:
        """One number."""
        return 1

    def targets(self, values: Tensor) -> Tensor:
        """Standardised values (M, 1)."""
        return ((values - self.mean) / self.deviation).float()[:, None]

    def strata(self, values: Tensor) -> Tensor:
        """One stratum: rows are drawn at random."""
        return torch.zeros_like(values, dtype=torch.int64)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error (N, B) of standardised values (N, B, 1)."""
        return (at_least_float32(output) - target).square().mean(-1)

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """Squared errors (N, B) of standardised values."""
        return Measured(self.loss(output, target))

    def value(self, items: Tensor) -> Tensor:
        """RMSE (N,) in the unit of the targets."""
        return self.deviation * items.double().mean(1).sqrt()

    def chance(self, targets: Tensor) -> float:
        """The RMSE of always predicting the mean of the rows that are not test rows."""
        return self.value(targets.square().mean(-1)[None]).item()

    @cached_property
    def mean(self) -> float:
        """Mean target of the rows that are not test rows."""
        return self._known.mean().item()

    @cached_property
    def deviation(self) -> float:
        """Standard deviation of the target over the rows that are not test rows."""
        return self._known.std().item()

    @property
    def _known(self) -> Tensor:
        """Targets of the rows that are not test rows, float64."""
        table = self.table
        return table.targets[torch.cat([table.rows["train"], table.rows["val"]])].double()


class TabularClassificationTask(Classifies, TabularTask):
    """Classify the rows of a table. The score is the accuracy.

    Args:
        dataset: ``breast_cancer`` (569 rows, 30 columns, 2 classes), ``wine`` (178, 13, 3) or ``iris`` (150, 4, 3).
        hidden: Widths of the hidden layers.
        val_fraction: Share of the rows that are not test rows that becomes the val split, stratified by class.
        split_seed: Seed of the val split.

    Raises:
        ParamgenError: Unknown table, a width below 1, or a fraction that is not between 0 and 1.
    """

    def __init__(
        self,
        dataset: str = "breast_cancer",
        hidden: Sequence[int] = (16,),
        val_fraction: float = 0.15,
        split_seed: int = 0,
    ) -> None:
        super().__init__(CLASSIFICATION, dataset, hidden, val_fraction, split_seed)

    @property
    def outputs(self) -> int:
        """Number of classes."""
        return int(self.table.targets.max()) + 1

    def targets(self, values: Tensor) -> Tensor:
        """Classes (M,)."""
        return values.long()

    def strata(self, values: Tensor) -> Tensor:
        """The classes."""
        return values
