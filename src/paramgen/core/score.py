"""The name, direction and format of a score, as recorded in zoo.json and results.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from paramgen.errors import require_choice

Unit = Literal["percent", "dB", "plain"]
ScoreAxis = Literal["error", "log", "linear"]


@dataclass(frozen=True)
class ScoreSpec:
    """A score's name, direction and form.

    Args:
        name: Name in tables and on axes: ``accuracy``, ``PSNR``, ``perplexity``.
        unit: ``percent`` (values are fractions), ``dB`` or ``plain``.
        higher_is_better: The direction.
        margin: A network is good when its score is not worse than the zoo's mean by more than this.
        axis: How a picture spreads it: ``error`` (logarithm of 1 - score), ``log`` or ``linear``.

    Raises:
        ParamgenError: Another unit or axis.
    """

    name: str = "accuracy"
    unit: Unit = "percent"
    higher_is_better: bool = True
    margin: float = 0.01
    axis: ScoreAxis = "error"

    def __post_init__(self) -> None:
        require_choice(Unit, "score.", unit=self.unit)
        require_choice(ScoreAxis, "score.", axis=self.axis)

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1: ``sign * score`` is always better when it is larger."""
        return 1 if self.higher_is_better else -1

    @property
    def symbol(self) -> str:
        """What follows a number: ``" %"``, ``" dB"`` or nothing."""
        return {"percent": " %", "dB": " dB", "plain": ""}[self.unit]

    @property
    def points(self) -> str:
        """What a difference of two scores is counted in: ``points``, ``dB`` or nothing."""
        return {"percent": "points", "dB": "dB", "plain": ""}[self.unit]

    @property
    def label(self) -> str:
        """Its name with its unit, for heads and axes: ``accuracy, %``."""
        return f"{self.name},{self.symbol}" if self.symbol else self.name

    def full(self, value: float) -> str:
        """A score with its unit: ``96.8 %``."""
        return self.text(value) + self.symbol

    def gap(self, difference: float) -> str:
        """The size of a difference of two scores, with its unit: ``0.3 points``."""
        return f"{self.text(abs(difference))} {self.points}".rstrip()

    def shown(self, value: float) -> float:
        """The number that is printed: percent for fractions, else the score itself."""
        return 100 * value if self.unit == "percent" else value

    def text(self, value: float, signed: bool = False) -> str:
        """A score, or with `signed` a difference of two, as printed, without its unit."""
        digits = 2 if self.unit == "plain" else 1
        return f"{self.shown(value):{'+' if signed else ''}.{digits}f}".replace("-", "−")

    def floor(self, mean: float) -> float:
        """The score from which a network is good, given the zoo's mean score."""
        return mean - self.sign * self.margin

    def good(self, value: Tensor, floor: float) -> Tensor:
        """Which scores (N,) are at least as good as `floor`: (N,) bool."""
        return value >= floor if self.higher_is_better else value <= floor

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for zoo.json and results.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any] | None) -> "ScoreSpec":
        """The inverse of :meth:`to_dict`; accuracy for None."""
        return cls(**(saved or {}))


ACCURACY = ScoreSpec()
