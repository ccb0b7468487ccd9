"""The columns of the report's table: what each figure is called, what it means, and how it is written."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from paramgen.evaluation.thresholds import THRESHOLDS

RowDict = dict[str, Any]
T = THRESHOLDS
SUBSPACE = f"{100 * T.subspace:.0f} %"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Args:
        key: Names it in the page.
        title: Its head.
        definition: What it is, shown on demand.
        value: Row to number, None where there is none.
        show: Number to text.
        more: Hidden until all figures are asked for.
        behind: Key of a column that says the same better: where that one has figures, this one is hidden too.
        mark: Row to what stands before the number.
    """

    key: str
    title: str
    definition: str
    value: Callable[[RowDict], float | None]
    show: Callable[[float], str]
    more: bool = False
    behind: str | None = None
    mark: Callable[[RowDict], str] = lambda row: ""

    def waits(self, shown: Collection[str]) -> bool:
        """Whether it is hidden until all figures are asked for, beside the columns whose keys are shown."""
        return self.more or self.behind in shown

    def text(self, row: RowDict) -> str:
        """A row's figure in words, a dash where there is none."""
        number = self.value(row)
        return "–" if number is None else self.mark(row) + self.show(number)


def _percent(v: float) -> str:
    return f"{100 * v:.1f}"


def _plain(v: float) -> str:
    return f"{v:.2f}" if abs(v) < 10_000 else f"{v:.1e}"  # of a network far outside the zoo


def _count(v: float) -> str:
    return f"{v:,.0f}"


def _signed(v: float) -> str:
    return f"{v:+.1f}".replace("-", "−")


def _seconds(v: float) -> str:
    return f"{v:,.1f}"


def _milliseconds(v: float) -> str:
    return f"{1000 * v:,.1f}" if v >= 1e-4 else "<0.1"


def _worst(row: RowDict) -> float | None:
    tasks = row.get("tasks")  # files written before families were measured have none
    return min(tasks["unseen"].values()) if tasks else None


def _seen(row: RowDict) -> float | None:
    seen = (row.get("tasks") or {}).get("seen")
    return sum(seen.values()) / len(seen) if seen else None


def _saturated(row: RowDict) -> str:
    zu, limit = row["zu"], row.get("zu_limit")
    return "" if zu is None or limit is None or abs(zu) < 0.9999 * limit else "≤ " if zu < 0 else "≥ "


def _of(*path: str) -> Callable[[RowDict], float | None]:
    def value(row: RowDict) -> float | None:
        found: Any = row
        for key in path:
            found = None if found is None else found.get(key)
        number: float | None = found
        return number

    return value


COLUMNS = (
    Column(
        "n",
        "N",
        "How many networks the row has. Best and minimum depend on it, so every row but the references has the same.",
        _of("n"),
        _count,
        more=True,
    ),
    Column(
        "mean",
        "Mean",
        "Mean test accuracy over all N networks, none selected, in percent. The figure to compare first. Of a family of tasks: "
        "each network on its own unseen task, the mean over these tasks.",
        _of("accuracy", "mean"),
        _percent,
    ),
    Column(
        "worst",
        "Worst task",
        "Of a family of tasks: the unseen task with the lowest mean test accuracy.",
        _worst,
        _percent,
    ),
    Column(
        "seen",
        "Seen",
        "Of a family of tasks: mean test accuracy on seen tasks, whose networks the generators learnt from.",
        _seen,
        _percent,
    ),
    Column(
        "std",
        "±",
        "Standard deviation of the test accuracy across the networks, in points.",
        _of("accuracy", "std"),
        _percent,
    ),
    Column(
        "best",
        "Best",
        "Highest test accuracy. It is a maximum over N and chosen on test: an upper end, not a result.",
        _of("accuracy", "best"),
        _percent,
    ),
    Column(
        "median", "Median", "Median test accuracy over all N networks.", _of("accuracy", "median"), _percent, more=True
    ),
    Column("min", "Min", "Lowest test accuracy: how bad a generated network can be.", _of("accuracy", "min"), _percent),
    Column(
        "selected",
        "Selected",
        "Test accuracy of the one network that is best on the train split: p-diff's protocol, free of choosing on "
        "test.",
        _of("accuracy", "selected"),
        _percent,
    ),
    Column(
        "recalibrated",
        "Mean, BN recal.",
        "Mean test accuracy after measuring batch-norm statistics anew on train images (reset, cumulative). 'Mean'"
        " has the statistics as generated.",
        _of("accuracy_recalibrated", "mean"),
        _percent,
    ),
    Column(
        "ensemble",
        "Vote of 16",
        "Accuracy of a majority vote of the first 16 networks: whether they err differently enough to help each other.",
        _of("ensemble_16"),
        _percent,
        more=True,
    ),
    Column(
        "run_ratio",
        "run_ratio",
        "Median L2 distance from a network to its nearest training network, over the same for held-out runs, each run counted once (for "
        f"training runs left out in turn where none is held out). 0: copies; about 1: as far away as a new run. "
        f"Below {T.within_run}, where runs have "
        "several checkpoints, networks stay within the runs that were learnt from. The zoo's own: each run against the others.",
        _of("run_ratio"),
        _plain,
    ),
    Column(
        "run_ratio_aligned",
        "aligned",
        "run_ratio after bringing each network's hidden units to the order and the scale in which it is nearest: a permuted copy "
        "is a copy. An upper bound: matching is a search.",
        _of("run_ratio_aligned"),
        _plain,
    ),
    Column(
        "nn_ratio",
        "nn_ratio",
        "Median L2 distance from a network to its nearest training network in steps: over tau, the median distance of a training network "
        "to the nearest other one. Where runs have several checkpoints that is the step between neighbouring checkpoints: 0 is a copy, but "
        "many steps can still be within a run.",
        _of("nn_ratio"),
        _plain,
        behind="run_ratio",
    ),
    Column(
        "nn_ratio_aligned",
        "steps, aligned",
        "nn_ratio up to the order and the scale of hidden units.",
        _of("nn_ratio_aligned"),
        _plain,
        behind="run_ratio_aligned",
    ),
    Column(
        "zu",
        "zu",
        "Mann-Whitney z of those distances against the held-out runs', one value for each held-out run (Meehan et al. 2020). About 0: as "
        "far as held-out runs; far below 0: nearer, copying. ≤ marks the lowest value that the number of held-out runs allows: every "
        "network is nearer than every held-out run. Fewer than 4 held-out runs cannot reach −3, below which it is flagged.",
        _of("zu"),
        _signed,
        mark=_saturated,
    ),
    Column(
        "near_share",
        "Near",
        f"Share of networks, in percent, that are nearer to a training network than {T.nearer} of the distance of a new run. The row of "
        "held-out runs shows what is usual. It sees a few copies among new networks, which a median does not.",
        _of("near_share"),
        _percent,
    ),
    Column(
        "near_share_aligned",
        "Near, aligned",
        "The same up to the order and the scale of hidden units: permuted and rescaled copies are near.",
        _of("near_share_aligned"),
        _percent,
    ),
    Column(
        "same_predictions",
        "Same answers",
        "Share of networks, in percent, that predict the same class as one training network on every test image. The row of held-out runs "
        "shows what is usual. It sees permuted and rescaled copies without alignment; noise hides from it.",
        _of("same_predictions"),
        _percent,
    ),
    Column(
        "novel",
        "Novel & good",
        "Share of networks with accuracy at least the zoo's mean less one point and at least half as far from the zoo as held-out runs, in "
        "percent. The held-out runs' share is the ceiling. Noise of the right size reaches it too: read it with structure.",
        _of("novel_and_good", "0.5"),
        _percent,
    ),
    Column(
        "dispersion",
        "Dispersion",
        "Spread of the row's weights over the spread of the zoo's: norm of the standard deviation across networks."
        f" Below {T.narrow} narrow, below {T.collapsed} collapsed, whatever the accuracy. "
        "Independent noise has spread too: read it with structure.",
        _of("dispersion"),
        _plain,
    ),
    Column(
        "structure",
        "Structure",
        "Whether the networks vary together as held-out networks do: the share of their variance in the subspace that holds "
        f"{SUBSPACE} of the "
        "zoo's, less the share of independent weights, over the same of held-out networks. 0: a mean plus independent noise on each "
        "weight; 1: as structured as held-out networks, or more. "
        f"Below {T.mean_plus_noise} it is flagged.",
        _of("structure"),
        _plain,
    ),
    Column(
        "variance_inside",
        "In subspace",
        f"Share of the row's variance, in percent, in the subspace that holds {SUBSPACE} of the zoo's.",
        _of("variance_inside"),
        _percent,
        more=True,
    ),
    Column(
        "iou",
        "IoU wrong",
        "Intersection over union of the wrongly predicted test images with the training network where it is "
        "largest (p-diff eq. 7), averaged. It sees copies of the same function from one in ten networks, noised ones never.",
        _of("iou_wrong_max"),
        _plain,
        more=True,
    ),
    Column(
        "disagree",
        "Disagree",
        "Share of test images, in percent, on which a network and its nearest training network say different classes.",
        _of("disagreement_nearest"),
        _percent,
        more=True,
    ),
    Column(
        "among",
        "Among",
        "Share of test images, in percent, on which two networks of the row say different classes.",
        _of("disagreement_samples"),
        _percent,
        more=True,
    ),
    Column(
        "cosine",
        "Cosine",
        "Mean of the largest cosine between a network's weights and a training network's (Wild-P-Diff).",
        _of("cosine_zoo"),
        lambda v: f"{v:.3f}",
        more=True,
    ),
    Column(
        "id_match",
        "id match",
        "Share of networks, in percent, whose nearest training network is the one whose identity conditioned them."
        " High: the generator recalls.",
        _of("id_match"),
        _percent,
        more=True,
    ),
    Column(
        "run_match",
        "run match",
        "Share of networks, in percent, whose nearest training network is of the run that conditioned them, or that their identity is of."
        " High: they reproduce the basin of their seed.",
        _of("run_match"),
        _percent,
        more=True,
    ),
    Column(
        "sample_seconds",
        "ms / network",
        "Milliseconds to draw one network, all of the row drawn together.",
        _of("sample_seconds_per_network"),
        _milliseconds,
    ),
    Column(
        "fit_seconds",
        "s to fit",
        "Seconds to train the generator; for the zoo, seconds to build it.",
        _of("fit_seconds"),
        _seconds,
        more=True,
    ),
    Column(
        "finetune_steps",
        "Steps to zoo",
        "Steps of training from the row's first 16 networks (Adam, rate 0.001, 64 train images a step) until their accuracy on the val "
        "split is the zoo's mean there less one point; the median, looked at every 5 steps. None where half do not get there in 500. "
        "Of a family: from all of the row's networks for unseen tasks, until they are as good as networks trained on the task, less one.",
        _of("finetune_steps"),
        _count,
    ),
    Column("params", "Parameters", "Parameters of the generator.", _of("generator_params"), _count, more=True),
)

GAP = Column(
    "gap",
    "vs zoo",
    "Mean accuracy less the zoo's own mean (of a family: less that of networks trained on the unseen tasks), in points, seed by seed; "
    "the spread is that of the differences.",
    _of("gap"),
    _signed,
)

PAPER = Column(
    "paper",
    "The paper's figure",
    "As printed in the paper, in percent, on the paper's own task: the head of this page says what smaller task was run here.",
    lambda row: None,
    _percent,
)

BY_KEY = {column.key: column for column in [*COLUMNS, GAP, PAPER]}
