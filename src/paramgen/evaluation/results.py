"""What an evaluation found, as plain values: ``results.json`` and everything that the report is made from.

Field names are the keys of ``results.json``. Scores are in the task's own unit (fractions for accuracy), shares are fractions in [0, 1].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from paramgen import __version__
from paramgen.core.io import plain_values
from paramgen.core.score import ScoreSpec
from paramgen.evaluation.flags import Flag
from paramgen.evaluation.intervals import Against
from paramgen.evaluation.novelty import DistanceUnit, RunScale
from paramgen.evaluation.structure import StructureReference
from paramgen.evaluation.thresholds import THRESHOLDS, Thresholds

FORMAT = 2
Kind = Literal["reference", "baseline", "generator"]
Role = Literal["zoo", "heldout", "direct", "start", "no_adapter", "untrained", "baseline", "generator"]


@dataclass(frozen=True)
class Points:
    """One value per network, for pictures.

    Args:
        score: On the test split; empty without scores.
        distance: To the nearest training network, in the evaluation's unit. Of the zoo's own networks, to the nearest of another run;
            of the same run where there is only one run.
        xy: Place in the plane of the zoo's first two principal components, in the evaluation's unit.
    """

    score: list[float]
    distance: list[float]
    xy: list[list[float]]


@dataclass(frozen=True)
class TaskScores:
    """Test scores on each task of a family, the mean over the row's networks for it.

    Args:
        unseen: By task.
        seen: By task; None where it is not measured.
    """

    unseen: Mapping[str, float]
    seen: Mapping[str, float] | None = None

    @property
    def mean(self) -> float:
        """Over the unseen tasks."""
        return sum(self.unseen.values()) / len(self.unseen)


@dataclass(frozen=True)
class Row:
    """What is measured on one set of networks.

    Args:
        name: Printed in tables and pictures.
        kind: Reference, baseline or generator.
        role: What the row is; code finds rows by their role, never by their name.
        n: Networks scored; 0 where a baseline failed.
        nonfinite: How many of them hold NaN or inf; they count in the scores and in no distance.
        values: A value for each metric of :mod:`paramgen.evaluation.registry`, by key; nan or None where there is none.
        novel_and_good: Share of networks both good and far, by distance in run scales; empty without a run scale.
        noise: Standard deviation of the white noise on copies, in the zoo's spread; None for rows that are no noised copies.
        uses_task_data: Whether the row saw the task's data.
        flags: What to know before believing the row.
        points: One value per network.
        tasks: For a family of tasks: the scores behind the mean, which is over its unseen tasks.
        against: Of a generator: its differences from the baselines and the other generators.
    """

    name: str
    kind: Kind
    role: Role
    n: int
    nonfinite: int
    values: Mapping[str, float | None]
    novel_and_good: Mapping[str, float]
    noise: float | None
    uses_task_data: bool
    flags: Sequence[Flag]
    points: Points
    tasks: TaskScores | None = None
    against: Sequence[Against] = ()

    def value(self, key: str) -> float:
        """The value of a metric, nan where there is none."""
        value = self.values.get(key)
        return float("nan") if value is None else value


@dataclass(frozen=True)
class Results:
    """A complete evaluation.

    Args:
        zoo: Its name.
        task: Its config, ``{"class_path", "init_args"}``; None for a zoo without a task.
        score: What networks are scored by; None for a zoo without a task.
        networks: K, training networks in the zoo.
        runs: Training runs that they come from; for a family, seen tasks.
        heldout: Held-out networks.
        params: P, generated parameters of one network.
        test_items: Items (images, sequences, points) that networks are scored on; for a family, of the unseen task that has the fewest.
        train_items: Train items that `selected` is chosen on; for a family, which chooses nothing, of the first seen task.
        n: Networks of every baseline and generator.
        seed: Of the baselines.
        tau: The zoo's step: the median distance of a training network to the nearest other one.
        good_from: Score from which a network is 'good': the zoo's mean less the score's margin; None without scores.
        seconds: Seconds of this evaluation.
        forward_seconds: Of these, seconds in the networks' forward passes.
        generators: Where each generator's networks come from.
        trajectories: By generator, networks on their way from noise through the zoo's principal plane: lines of places.
        notes: What this evaluation could not do, and why.
        rows: The zoo first; for a family of tasks, networks trained on the unseen tasks (`direct`).
        checkpoints: The most training networks of one run.
        unit: What the distances of `points` and of `against` are divided by: the run scale, or tau where there is none.
        run_scale: How far a new run lies from its nearest training network.
        subspace: What structure is measured by.
        thresholds: Numbers that flags and verdicts use.
        renders: By row, the first networks' grey values (H, W), for networks that are themselves data.
        command: The command line that made it.
        format: Version of this layout.
        paramgen: Version of the program.
    """

    zoo: str
    task: Mapping[str, Any] | None
    score: ScoreSpec | None
    networks: int
    runs: int
    heldout: int
    params: int
    test_items: int
    train_items: int
    n: int
    seed: int
    tau: float
    good_from: float | None
    seconds: float
    forward_seconds: float
    generators: Mapping[str, Mapping[str, Any]]
    trajectories: Mapping[str, list[list[list[float]]]]
    notes: Sequence[str]
    rows: Sequence[Row]
    checkpoints: int
    unit: DistanceUnit
    run_scale: RunScale | None
    subspace: StructureReference | None
    thresholds: Thresholds = THRESHOLDS
    renders: Mapping[str, list[list[list[float]]]] = field(default_factory=dict)
    command: str | None = None
    format: int = FORMAT
    paramgen: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; see :func:`paramgen.core.io.plain_values`."""
        plain: dict[str, Any] = plain_values(self)
        return plain
