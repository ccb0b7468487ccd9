"""Every number that a verdict, a flag or a picture of the report is drawn by, in one table; ``results.json`` carries it to the page."""

from typing import NamedTuple


class Thresholds(NamedTuple):
    """Numbers that figures are judged by.

    Args:
        collapsed: Dispersion below which a generator has collapsed.
        narrow: Dispersion below which it is narrower than the zoo.
        wide: Dispersion above which it is more varied than the zoo.
        copies: nn_ratio below which networks are copies of training networks.
        within_run: run_ratio below which networks stay within a training run, where runs have several checkpoints.
        nearer: Share of a scale below which networks are nearer to the zoo than what the scale is measured on.
        some: Share of copies, beyond the reference's own share, from which a row is flagged although its median is not.
        farther: Share of a scale from which they are farther away.
        zu: Below it networks are nearer to the zoo than held-out runs.
        mean_plus_noise: Structure below which networks are the zoo's mean with independent noise on each weight.
        subspace: Share of the zoo's variance that its principal subspace holds.
        measurable: Share of held-out networks' variance that the subspace must hold, beyond what it holds of independent weights, for
            structure to be measured.
        works: Share of the way from chance to the zoo's mean score from which a row works at all; copying is not looked for below.
        level: Confidence level of intervals and tests.
        curve: Multiples of the scale at which novel and good networks are counted.
    """

    collapsed: float = 0.5
    narrow: float = 0.8
    wide: float = 1.25
    copies: float = 0.25
    within_run: float = 0.5
    nearer: float = 0.8
    some: float = 0.05
    farther: float = 1.25
    zu: float = -3.0
    mean_plus_noise: float = 0.25
    subspace: float = 0.95
    measurable: float = 0.1
    works: float = 0.5
    level: float = 0.95
    curve: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 2.0)


THRESHOLDS = Thresholds()
