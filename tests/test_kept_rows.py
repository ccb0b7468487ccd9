"""The kept comparison of classifiers (docs/results/digits_trajectory.json), made again at its seeds, has the same figures."""

from pathlib import Path

import pytest

from paramgen.cli.commands.compare_steps import ZooSource, make_zoo
from paramgen.core.io import read_json, write_json
from paramgen.evaluation.compare import Report, summarise
from paramgen.evaluation.evaluate import evaluate
from paramgen.tasks import family_of

KEPT = Path(__file__).parents[1] / "docs/results/digits_trajectory.json"
BASELINES = ["noise-0.5", "soup-16"]
ROWS = ["zoo", "held-out runs", *BASELINES]
TIMES = ("fit_seconds", "sample_seconds")
# Where training gives the kept networks again (their distances say so), all figures are the same. A processor that rounds differently gives
# slightly other networks: with the training loss changed at random by 1e-6, no figure moved by more than 1e-4 of itself. There, one changed
# network of 300 in `same_predictions`, or two changed images in `worst`, are allowed.
SAME, OTHER = {"rel": 1e-5, "abs": 1e-6}, {"rel": 0.002, "abs": 0.004}


def test_the_report_of_a_classifier_zoo_is_the_kept_one_figure_for_figure(tmp_path):
    reports = []
    for seed in (0, 1, 2):
        source = ZooSource(collect="digits_mlp_trajectory", arguments={"score_images": 1})
        zoo = make_zoo(tmp_path / str(seed), source, {}, seed)
        results = evaluate(zoo, family_of(zoo), (), BASELINES, n=100, seed=seed)
        reports.append(Report("mlp", seed, tmp_path / f"{seed}.json"))
        write_json(reports[-1].path, {**results.to_dict(), "command": ""})
    ours, kept = figures(summarise(reports)), figures(read_json(KEPT)["summary"])
    assert list(ours) == ROWS
    trained_alike = all(ours[row]["nn_ratio"] == pytest.approx(kept[row]["nn_ratio"], **SAME) for row in ROWS)
    for row in ROWS:
        assert ours[row] == pytest.approx(kept[row], **(SAME if trained_alike else OTHER)), row


def figures(summary):
    """Mean and standard deviation of every figure of the MLP's rows, without times."""
    rows = {row["name"]: row["figures"] for row in summary if row["zoo"] == "mlp" and row["name"] in ROWS}
    return {
        name: {
            key: value
            for metric, figure in row.items()
            if metric not in TIMES and figure
            for key, value in ((metric, figure["mean"]), (f"{metric}, std", figure["std"]))
        }
        for name, row in rows.items()
    }
