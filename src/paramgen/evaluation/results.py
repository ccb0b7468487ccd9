"""What an evaluation found, as plain values: ``results.json`` and everything that the report is made from.

Field names are the keys of ``results.json``; other programs read them, so they are stable. Accuracies and shares are fractions in [0, 1].
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from typing import Any, Literal

import torch

from paramgen import __version__
from paramgen.errors import ParamgenError
from paramgen.evaluation.flags import Flag
from paramgen.evaluation.intervals import Against
from paramgen.evaluation.metrics import AccuracySummary, WrongIoU
from paramgen.evaluation.novelty import RunScale, Unit
from paramgen.evaluation.structure import Reference
from paramgen.evaluation.thresholds import THRESHOLDS, Thresholds

FORMAT = 1
NAN = float("nan")
Kind = Literal["reference", "baseline", "generator"]


@dataclass(frozen=True)
class Points:
    """One value a network, for pictures.

    Args:
        accuracy: On the test split.
        distance: To the nearest training network, in the evaluation's unit. Of the zoo's own networks, to the nearest of another run;
            of the same run where there is one run alone.
        xy: Place in the plane of the zoo's first two principal components, in the evaluation's unit.
    """

    accuracy: list[float]
    distance: list[float]
    xy: list[list[float]]


@dataclass(frozen=True)
class TaskAccuracies:
    """Test accuracy on each task of a family, the mean over the row's networks for it.

    Args:
        unseen: By task.
        seen: By task; None where it is not measured.
    """

    unseen: Mapping[str, float]
    seen: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Row:
    """What is measured on one set of networks; nan or None where a figure cannot be had.

    Args:
        name: Stands in the table.
        kind: Reference, baseline or generator.
        n: Networks scored; 0 where a baseline failed.
        nonfinite: How many of them hold NaN or inf; they count in the accuracies as they score, and in no distance.
        accuracy: On the test split.
        accuracy_recalibrated: The same with batch-norm statistics measured anew on train images.
        ensemble_16: Accuracy of a majority vote of the first 16.
        nn_ratio: Median distance to the nearest training network over tau, the zoo's step.
        nn_ratio_aligned: The same up to permutation and scale.
        zu: Copying statistic against held-out runs, one observation a run.
        id_match: Share of samples nearest to the network whose identity conditioned them.
        run_match: Share of samples nearest to a network of the run that conditioned them, or that their identity is of; None with one run.
        iou_wrong_max: Mean over samples of the largest IoU of wrong predictions with the zoo.
        iou_wrong: The four averages of p-diff's Fig. 4a.
        disagreement_nearest: Share of test images on which a network and its nearest training network differ.
        disagreement_samples: The same between networks of the row.
        cosine_zoo: Mean of the largest cosine with a training network.
        cosine_samples: Mean of the largest cosine with another network of the row.
        dispersion: Spread of the row over the zoo's spread.
        novel_and_good: Share both accurate and far, by the distance asked for in run scales; empty where there is no run scale.
        fit_seconds: Seconds to train the generator; of the zoo, to build it.
        sample_seconds_per_network: Seconds to draw one network.
        num_inference_steps: Solver steps.
        generator_params: Parameters of the generator.
        uses_task_data: Whether the generator saw the task's data.
        finetune_steps: Median steps of training from the row's networks until they are as good as the zoo on val; None when half never are.
        flags: What to know before believing the row.
        points: One value a network.
        tasks: Of a family of tasks: the accuracies behind the mean, which is over its unseen tasks.
        run_ratio: Median distance to the nearest training network over the run scale; None where the zoo has no run scale.
        run_ratio_aligned: The same up to permutation and scale.
        zu_limit: The largest |zu| that the numbers of networks and of held-out runs allow: zu is saturated there.
        structure: How far the networks vary together as held-out networks do: 0 for a mean with independent noise, at most 1.
        variance_inside: Share of their variance inside the zoo's principal subspace.
        against: Of a generator: its differences from the baselines and the other generators.
        near_share: Share of networks nearer to a training network than new runs; None where the zoo has no run scale.
        near_share_aligned: The same up to permutation and scale.
        same_predictions: Share of networks that predict as one training network does on every test image.
    """

    name: str
    kind: Kind
    n: int
    nonfinite: int
    accuracy: AccuracySummary
    accuracy_recalibrated: AccuracySummary | None
    ensemble_16: float
    nn_ratio: float
    nn_ratio_aligned: float | None
    zu: float
    id_match: float | None
    run_match: float | None
    iou_wrong_max: float
    iou_wrong: WrongIoU
    disagreement_nearest: float
    disagreement_samples: float
    cosine_zoo: float
    cosine_samples: float
    dispersion: float
    novel_and_good: Mapping[str, float]
    fit_seconds: float | None
    sample_seconds_per_network: float | None
    num_inference_steps: int | None
    generator_params: int | None
    uses_task_data: bool
    finetune_steps: float | None
    flags: Sequence[Flag]
    points: Points
    tasks: TaskAccuracies | None = None
    run_ratio: float | None = None
    run_ratio_aligned: float | None = None
    zu_limit: float = NAN
    structure: float = NAN
    variance_inside: float = NAN
    against: Sequence[Against] = ()
    near_share: float | None = None
    near_share_aligned: float | None = None
    same_predictions: float | None = None


@dataclass(frozen=True)
class Results:
    """A whole evaluation.

    Args:
        zoo: Its name.
        task: Its config, ``{"class_path", "init_args"}``.
        networks: K, training networks in the zoo.
        runs: Training runs that they come from; of a family, seen tasks.
        heldout: Held-out networks.
        params: P, generated parameters of one network.
        test_images: Images that accuracies are measured on; of a family, of the unseen task that has the fewest.
        train_images: Images that `selected` chooses on; of a family, which chooses nothing, of the first seen task.
        n: Networks asked of every baseline and generator.
        seed: Of the baselines.
        tau: The zoo's step: the median distance of a training network to the nearest other one.
        good_from: Accuracy from which a network is 'good': the zoo's mean less one point.
        seconds: Seconds of this evaluation.
        forward_seconds: Of these, seconds in the networks' forward passes.
        generators: Where each generator's networks come from.
        trajectories: By generator, networks on their way from noise through the zoo's principal plane, over tau: lines of places.
        notes: What this evaluation could not do, and why.
        rows: The zoo first; of a family of tasks, networks trained on the unseen tasks (`direct`).
        checkpoints: The most training networks of one run.
        unit: What the distances of `points` and of `against` are divided by: the run scale, or tau where there is none.
        run_scale: How far a new run lies from its nearest training network.
        subspace: What structure is measured by.
        thresholds: Numbers that flags and verdicts go by.
        command: The command line that made it.
        format: Version of this layout.
        paramgen: Version of the program.
    """

    zoo: str
    task: Mapping[str, Any]
    networks: int
    runs: int
    heldout: int
    params: int
    test_images: int
    train_images: int
    n: int
    seed: int
    tau: float
    good_from: float
    seconds: float
    forward_seconds: float
    generators: Mapping[str, Mapping[str, Any]]
    trajectories: Mapping[str, list[list[list[float]]]]
    notes: Sequence[str]
    rows: Sequence[Row]
    checkpoints: int
    unit: Unit
    run_scale: RunScale | None
    subspace: Reference | None
    thresholds: Thresholds = THRESHOLDS
    command: str | None = None
    format: int = FORMAT
    paramgen: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: names for fields, None for nan and inf, floats to 7 significant digits."""
        plain: dict[str, Any] = _plain(self)
        return plain


def row_or_reason(name: str, measure: Callable[[], Row]) -> Row:
    """A baseline's row; if it fails, a row without figures whose flag says why, so that the other rows are still measured.

    Args:
        name: Of the baseline.
        measure: Draws its networks and measures them.
    """
    try:
        return measure()
    except Exception as error:  # no single baseline may end a report, whatever goes wrong in it
        reason = str(error).partition("\n")[0] or "no message"
        reason = reason if isinstance(error, ParamgenError) else f"{type(error).__name__}: {reason}"
        logging.getLogger(__name__).warning("baseline %s failed: %s", name, reason, exc_info=_unexpected(error))
        return _without_figures(name, Flag("failed", reason))


def _unexpected(error: Exception) -> bool:
    """Whether a traceback helps: not for a user error, nor where memory ran out."""
    return not isinstance(error, ParamgenError | MemoryError | torch.OutOfMemoryError)


def _without_figures(name: str, flag: Flag) -> Row:
    nan = NAN
    return Row(
        name=name,
        kind="baseline",
        n=0,
        nonfinite=0,
        accuracy=AccuracySummary(nan, nan, nan, nan, nan, nan),
        accuracy_recalibrated=None,
        ensemble_16=nan,
        nn_ratio=nan,
        nn_ratio_aligned=None,
        zu=nan,
        id_match=None,
        run_match=None,
        iou_wrong_max=nan,
        iou_wrong=WrongIoU(nan, nan, nan, nan),
        disagreement_nearest=nan,
        disagreement_samples=nan,
        cosine_zoo=nan,
        cosine_samples=nan,
        dispersion=nan,
        novel_and_good={},
        fit_seconds=None,
        sample_seconds_per_network=None,
        num_inference_steps=None,
        generator_params=None,
        uses_task_data=False,
        finetune_steps=None,
        flags=[flag],
        points=Points([], [], []),
    )


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if isfinite(value) else None
    return value
