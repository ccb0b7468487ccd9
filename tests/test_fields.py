"""Fields as a distribution: one network a picture, new ones compared with held-out ones as sets."""

import jsonschema
import pytest
import torch
from torch.nn import functional as F

from paramgen.cli.commands import evaluate
from paramgen.collect import multi
from paramgen.collect.train import OptimSettings
from paramgen.core.io import read_json
from paramgen.core.sample_writer import write_samples
from paramgen.core.samples import SampleInfo
from paramgen.errors import ParamgenError
from paramgen.evaluation.schema import results_schema
from paramgen.evaluation.set_metrics import coverage, minimum_matching_distance, one_nearest_neighbour_accuracy
from paramgen.tasks import FieldFamily, FieldsTask, task_of
from paramgen.tasks.conditions import CodeCondition
from paramgen.tasks.field_sources import digit_pictures
from whole_line import fitted_samples


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    out = tmp_path_factory.mktemp("fields") / "zoo"
    optim = OptimSettings("adam", lr=0.01, schedule="cosine", batch_size=64)
    family = FieldFamily(fields=24, heldout=12, hidden=12)
    return multi.main(
        family, str(out), CodeCondition(dim=10), steps=150, start="converged", start_task="pooled", optim=optim
    )


def test_one_field_a_picture_makes_a_zoo_of_one_task_with_labels_as_conditions(zoo):
    task, pictures = task_of(zoo), digit_pictures()
    assert isinstance(task, FieldsTask)
    assert {entry.task for entry in zoo.entries} == {None}
    assert (len(zoo.indices("train")), len(zoo.indices("heldout"))) == (24, 12)
    renders = task.rendered([zoo.full(i) for i in range(36)])
    for i, entry in enumerate(zoo.entries):
        own = task.order[entry.run]
        psnr = -10 * F.mse_loss(renders[i], pictures.grey[own]).log10().item()
        assert psnr == pytest.approx(entry.scores["train"]["score"], abs=0.01)  # the pixels are the train points
        assert psnr > 20
        assert entry.condition.index(1.0) == pictures.label[own]


def test_a_new_field_is_scored_on_digits_that_no_network_of_the_zoo_is(zoo):
    task = task_of(zoo)
    scores = task.evaluate([zoo.full(0), zoo.full(30)], "test")
    others = digit_pictures().grey[task.order[37::2]]
    for render, value in zip(scores.renders, scores.value, strict=True):
        nearest = min(F.mse_loss(render, other).item() for other in others)
        assert value.item() == pytest.approx(-10 * torch.tensor(nearest).log10().item(), abs=1e-3)


def test_sets_that_are_apart_alike_or_collapsed_have_the_known_measures():
    noise = torch.Generator().manual_seed(0)
    reference, same = torch.randn(2, 200, 3, generator=noise)
    assert one_nearest_neighbour_accuracy(same, reference) == pytest.approx(0.5, abs=0.08)
    assert one_nearest_neighbour_accuracy(same + 100, reference) == 1
    assert one_nearest_neighbour_accuracy(reference.clone(), reference) == 0  # the nearest is the twin
    assert (coverage(reference, reference), coverage(same[:1].expand(200, 3), reference)) == (1, 1 / 200)
    assert minimum_matching_distance(reference + 2, reference) <= 2  # 2 in each of three coordinates
    assert minimum_matching_distance(reference, reference) == 0


def test_every_row_of_a_report_has_the_set_measures_and_its_pictures(zoo, tmp_path):
    drawn = [zoo.full(i) for i in zoo.indices("train")[:12]]
    copies = write_samples(tmp_path / "copies", drawn, SampleInfo())
    generated = fitted_samples("pdiff_digits_fields", zoo, tmp_path / "pdiff", n=12, zoo=str(zoo.path))
    evaluate.main(zoo=str(zoo.path), samples=[str(copies), str(generated)], out=str(tmp_path / "out"), n=12)
    results = read_json(tmp_path / "out" / "results.json")
    jsonschema.validate(results, results_schema())
    rows = {row["name"]: row["values"] for row in results["rows"]}
    assert {"zoo", "held-out runs", "copies", "pdiff", "gaussian", "random-init"} <= set(rows)
    assert all(values[key] is not None for values in rows.values() for key in ("nna", "cov", "mmd", "picture_ratio"))
    assert rows["copies"]["picture_ratio"] == pytest.approx(0, abs=1e-6)
    assert rows["held-out runs"]["picture_ratio"] > 0.5
    assert rows["random-init"]["nna"] == 1
    assert rows["random-init"]["mmd"] > rows["copies"]["mmd"]
    shown = torch.tensor(results["renders"]["copies"])
    torch.testing.assert_close(shown, task_of(zoo).rendered(drawn)[:8], atol=0.006, rtol=0)
    assert (tmp_path / "out" / "renders.png").exists()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: FieldFamily(fields=1700, heldout=100), "more than 1795 of the 1797 digits"),
        (lambda: FieldsTask().data("train"), "a new field has no target"),
    ],
)
def test_mistakes_with_fields_are_named(make, expected):
    with pytest.raises(ParamgenError, match=expected):
        make()
