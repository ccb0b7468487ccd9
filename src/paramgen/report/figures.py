"""The report's figures: what each shows, how to read it, and what prepares its picture.

A figure is prepared once, as plain data. ``templates/figures.js`` draws these data in the page, and :mod:`paramgen.report.png` in files.
"""

from collections.abc import Callable
from dataclasses import dataclass

from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.report import against, by_row, details, places
from paramgen.report.picture import PictureData, Pictures
from paramgen.report.view import ResultsDict, View


@dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Args:
        key: Names it in the page, and its file.
        title: Its head.
        caption: How to read it, always shown.
        definition: What exactly is drawn, shown on demand.
        prepare: Makes its picture; None where the evaluation lacks what is drawn.
        wide: Takes the page's whole width.
        file: Is also written as a PNG.
    """

    key: str
    title: str
    caption: str
    definition: str
    prepare: Callable[[View], PictureData | None]
    wide: bool = False
    file: bool = False


FIGURES = (
    Figure(
        "tasks",
        "Task by task",
        "One line per unseen task, easiest first; one dot per row. Filled black dots: training on the task itself.",
        "Mean test score of the row's networks for each unseen task (accuracy on a log axis of the error). Choose rows above; point at "
        "a dot for its figures.",
        by_row.tasks,
        wide=True,
        file=True,
    ),
    Figure(
        "strips",
        "Good, new, and varied",
        "One dot per network, one line per row. A good generator lies near the dotted lines in all three columns: the zoo's mean score, "
        "the distance of a new run, the zoo's spread.",
        "Left: test score of every network, better to the right (accuracy on a log axis of the error, so that 97 and 98 % stay apart); "
        "the bar is the mean. "
        "Middle: L2 distance of every network to its nearest training network, divided by the distance of a new run (in steps between "
        "neighbouring checkpoints if the zoo has only one run); the bar is the median, run_ratio. In its shaded band, networks stay "
        "within the training runs. Right: spread of the row's weights divided by the zoo's; in the shaded band, a row has collapsed.",
        by_row.strips,
        wide=True,
        file=True,
    ),
    Figure(
        "renders",
        "The networks as images",
        "The first networks of every row as images. A copy looks as good as a new one: read it with picture_ratio.",
        "Networks that are themselves data, such as fields: each is run on the pixels of a grid. The grey values are what 1-NNA, COV and "
        "MMD compare.",
        details.renders,
        wide=True,
        file=True,
    ),
    Figure(
        "plane",
        "Score against distance",
        "Up and to the right is better. On or below the grey line, a generator does no better than noise.",
        "Mean test score of each row against its run_ratio (nn_ratio if the zoo has only one run); small dots are single networks "
        "of generators and held-out runs. The grey line joins training networks with white noise of growing size. In the shaded band, "
        "networks stay within the training runs. Dotted: the distance of a new run, and the score from which a network "
        "counts as good, the zoo's mean minus the score's margin (one point of accuracy).",
        against.plane,
        file=True,
    ),
    Figure(
        "novelty",
        "Novel and good",
        "How many networks are as good as the zoo and still far from it. Held-out runs, if any, are dashed: the ceiling. "
        "A mean with independent noise can reach it too: read it with structure.",
        "Share of a row's networks that are good and at least c times as far from every training "
        "network as a new run is, for c = " + ", ".join(f"{c:g}" for c in THRESHOLDS.curve) + ".",
        against.novelty,
        file=True,
    ),
    Figure(
        "alike",
        "Score against similarity of errors",
        "p-diff's own measure of novelty. It hardly separates copies from new networks; distance does.",
        "Mean test score against the largest intersection over union of wrongly predicted test items with a training "
        "network, averaged over the row (p-diff, eq. 7 and Fig. 4b). Dotted: the zoo's networks among each other.",
        against.alike,
        file=True,
    ),
    Figure(
        "map",
        "Map of the networks",
        "Two dimensions of many: networks that look close may be far apart; those that look far apart are.",
        "Each network in the plane of the zoo's first two principal components, in the unit of the distances, one scale on both axes. "
        "Noise is that of the zoo's own size. Cropped to the extent of the zoo, held-out runs and generators.",
        places.map_of,
        file=True,
    ),
    Figure(
        "trajectories",
        "From noise to network",
        "One line per network while it is sampled, from the hollow dot (noise) to the filled one. "
        "If samples differ, their lines end at different points.",
        "The first networks of each generator after up to ten evenly spread steps of the solver, decoded, in the plane of the zoo's "
        "first two principal components (p-diff, Fig. 5a), in the unit of the distances. Small dots: the zoo's networks.",
        places.trajectories,
        file=True,
    ),
    Figure(
        "weights",
        "Weights, layer by layer",
        "A first sample, its nearest training network, and their difference. The paler the difference, the closer to a copy.",
        "The first rows and columns of each layer's weight matrix (outputs down, inputs across; kernels flattened), as p-diff "
        "draws them in Fig. 3. Colour by sign, strength by size, one scale per layer.",
        details.layers,
        wide=True,
    ),
    Figure(
        "training",
        "During the fit",
        "A falling loss says little: watch the score, distance and dispersion of the samples.",
        "From the fit's own log, against optimizer steps: losses, and a few samples drawn at intervals, measured on the task's "
        "val split. The test split is not used.",
        details.training,
        wide=True,
    ),
)


def pictures_of(results: ResultsDict) -> Pictures:
    """The pictures that an evaluation has the data for.

    Args:
        results: As ``results.json`` holds it.
    """
    view = View(results)
    prepared = {figure.key: figure.prepare(view) for figure in FIGURES}
    return Pictures(view.notes(), {key: picture for key, picture in prepared.items() if picture is not None})
