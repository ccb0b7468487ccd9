"""The report's figures: what each shows, how to read it, and whether an evaluation has what it needs.

They are drawn in the page by ``templates/figures.js`` from the same ``results.json``, one function of the same key a figure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paramgen.evaluation.thresholds import THRESHOLDS

Results = dict[str, Any]
RowDict = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Args:
        key: Names it in the page and in ``figures.js``.
        title: Its head.
        caption: How to read it, always shown.
        definition: What exactly is drawn, shown on demand.
        wide: Takes the page's whole width.
        needs: Whether the results hold what is drawn.
    """

    key: str
    title: str
    caption: str
    definition: str
    wide: bool = False
    needs: Callable[[Results], bool] = lambda results: True


def _any_row(key: str) -> Callable[[Results], bool]:
    return lambda results: any(row["values"][key] is not None for row in results["rows"])


def _any_generator(key: str) -> Callable[[Results], bool]:
    return lambda results: any(info.get(key) for info in results["generators"].values())


FIGURES = (
    Figure(
        "tasks",
        "Task by task",
        "One line an unseen task, easiest first; one dot a row. Black dots are what training on the task itself reaches.",
        "Test score on each unseen task, the mean over the row's networks for it; of accuracy on a log axis of the error. Choose rows "
        "above; point at a dot for its figures.",
        wide=True,
        needs=lambda results: bool(results["rows"][0]["tasks"]),
    ),
    Figure(
        "strips",
        "Good, new, and varied",
        "One dot a network, one line a row. A good generator keeps to the dotted lines in all three columns: the zoo's mean score, the "
        "distance of a new run, the zoo's spread.",
        "Left: test score of every network, better to the right (accuracy on a log axis of the error, so that 97 and 98 % stay apart); "
        "the bar is the mean. "
        "Middle: L2 distance of every network to its nearest training network, over the distance of a new run (in steps between "
        "neighbouring checkpoints where the zoo has one run alone); the bar is the median, run_ratio. In its shaded band networks stay "
        "within the runs that were learnt from. Right: spread of the row's weights over the zoo's; in the shaded band a row has collapsed.",
        wide=True,
    ),
    Figure(
        "plane",
        "Score against distance",
        "Up and to the right is better. On the grey line or below it, a generator does no more than noise.",
        "Mean test score of each row against its run_ratio (nn_ratio where the zoo has one run alone); small dots are single networks "
        "of generators and held-out runs. The grey line joins training networks with white noise of growing size. In the shaded band "
        "networks stay within the runs that were learnt from. Dotted: the distance of a new run, and the score from which a network "
        "counts as good, the zoo's mean less the score's margin (one point of accuracy).",
        needs=lambda results: results["score"] is not None and _any_row("nn_ratio")(results),
    ),
    Figure(
        "novelty",
        "Novel and good",
        "How many networks are as good as the zoo and yet at a distance. Held-out runs, dashed, are the ceiling where there are any. "
        "A mean with independent noise can reach it too: read it with structure.",
        "Share of a row's networks that are good and at least c times as far from every training "
        "network as a new run is, for c = " + ", ".join(f"{c:g}" for c in THRESHOLDS.curve) + ".",
        needs=lambda results: any(row["novel_and_good"] for row in results["rows"]),
    ),
    Figure(
        "alike",
        "Score against likeness of errors",
        "p-diff's own picture of novelty. It does not tell copies from fresh networks well; distance does.",
        "Mean test score against the largest intersection over union of wrongly predicted test items with a training "
        "network, averaged over the row (p-diff, eq. 7 and Fig. 4b). Dotted: the zoo's networks among each other.",
        needs=_any_row("iou_wrong_max"),
    ),
    Figure(
        "map",
        "Where they lie",
        "Two dimensions of many: near here may be far in truth, but far here is far.",
        "Each network in the plane of the zoo's first two principal components, in the unit of the distances, one scale on both axes. "
        "Noise is that of the zoo's own size. Cut at the reach of the zoo, held-out runs and generators.",
    ),
    Figure(
        "trajectories",
        "From noise to network",
        "One line a network as it is sampled, from the hollow dot (noise) to the full one. Where lines end apart, samples differ.",
        "The first networks of each generator after up to ten evenly spread steps of the solver, decoded, in the plane of the zoo's "
        "first two principal components (p-diff, Fig. 5a), in the unit of the distances. Small dots: the zoo's networks.",
        needs=lambda results: bool(results.get("trajectories")),
    ),
    Figure(
        "weights",
        "Weights, layer by layer",
        "A first sample, the training network nearest to it, and their difference. The blanker the difference, the nearer to a copy.",
        "The first rows and columns of each layer's weight matrix (outputs down, inputs across; kernels flattened), as p-diff "
        "draws them in Fig. 3. Colour by sign, strength by size, one scale a layer.",
        wide=True,
        needs=lambda results: bool(results.get("weights")),
    ),
    Figure(
        "training",
        "While it learned",
        "A falling loss says little; watch score, distance and dispersion of the samples.",
        "From the fit's own log, against optimizer steps: losses, and a few samples drawn now and then, measured on the task's "
        "val split. The test split is not in here.",
        wide=True,
        needs=_any_generator("history"),
    ),
)


def shown(results: Results) -> list[Figure]:
    """The figures that an evaluation has what is needed for."""
    return [figure for figure in FIGURES if figure.needs(results)]


def colour(rows: Sequence[RowDict], row: RowDict) -> str:
    """Class that gives a row its colour: generators one each, references ink, baselines grey."""
    if row["kind"] == "generator":
        names = [r["name"] for r in rows if r["kind"] == "generator"]
        return f"g{names.index(row['name']) % 6}"
    if row["kind"] == "reference":
        return "zoo" if row["role"] in ("zoo", "direct") else "held"
    return "base"
