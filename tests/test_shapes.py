"""Fields of shapes and of MNIST: exact distances, IoU, and generation by label from the zoo to the report."""

import struct

import pytest
import torch
from torch.nn import functional as F

from paramgen.cli.commands import compare, sample
from paramgen.cli.commands.compare_steps import GeneratorSource, ZooSource
from paramgen.collect import multi
from paramgen.core.io import read_json
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import FieldFamily, ShapeFamily, ShapesTask, task_of
from paramgen.tasks.conditions import CodeCondition
from paramgen.tasks.field_sources import ShapeSource, digit_pictures, grey_pictures
from paramgen.tasks.fields import Encloses
from paramgen.tasks.shapes import KINDS, SHAPES, all_shapes, polygon_distance, signed_distance

TINY = {"family.init_args.fields": 30, "family.init_args.heldout": 12, "steps": 60, "start_steps": 60}


@pytest.mark.parametrize("kind", KINDS)
def test_signed_distances_are_those_to_the_nearest_point_on_the_other_side(kind):
    side = (torch.arange(200) + 0.5) / 200
    grid, points = torch.cartesian_prod(side, side), torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    for number in range(KINDS.index(kind), 5 * len(KINDS), len(KINDS)):
        inside, distance = (
            signed_distance(all_shapes()[number], grid) < 0,
            signed_distance(all_shapes()[number], points),
        )
        opposite = inside[None] == (distance >= 0)[:, None]
        nearest = torch.cdist(points, grid).masked_fill(~opposite, torch.inf).amin(1)
        assert (distance.abs() - nearest).abs().max() < 0.015  # three cells of the grid: the tips of a star are thin
        assert 0.01 < inside.float().mean() < 0.45


def test_the_distance_of_a_square_is_known_everywhere():
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    points = torch.tensor([[0.5, 0.5], [0.25, 0.5], [0.5, 2.0], [2.0, 2.0], [-3.0, 0.5]])
    assert polygon_distance(square, points).tolist() == pytest.approx([-0.5, -0.25, 1.0, 2**0.5, 3.0])


def test_iou_counts_points_in_both_insides_over_points_in_either():
    scored = Encloses()
    target = torch.tensor([-1.0, -1.0, 1.0, 1.0])[None, :, None]
    output = torch.tensor([[-1.0, 1.0, -1.0, 1.0], [-1.0, -1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])[..., None]
    assert scored.value(scored.measure(output, target[0]).items).tolist() == pytest.approx([1 / 3, 1, 0])
    others = torch.tensor([[-1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, 1.0, 1.0]])
    assert scored.best_match(output[..., 0], others).tolist() == pytest.approx([1 / 2, 1, 0])


def test_shapes_that_are_their_own_distance_have_an_iou_of_one_and_an_even_mix_of_kinds():
    source = ShapeSource()
    assert source.labels.bincount().tolist() == pytest.approx([SHAPES / 6] * 6, abs=1)
    values = source.values(range(12), source.pixels)[..., 0]
    assert Encloses().best_match(values, values).tolist() == [1.0] * 12
    assert torch.equal(source.renders(values) > 0.5, (values < 0).view(12, 24, 24))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of small shape fields by kind: zoo, fit, samples, report."""
    out = tmp_path_factory.mktemp("shapes") / "out"
    short = {"trainer.max_steps": 60, "data.steps_per_epoch": 60, "model.init_args.autoencoder.latent_dim": 16}
    zoos = {"shapes": ZooSource(collect_tasks="shape_fields", arguments=TINY)}
    fits = {"pdiff": GeneratorSource(fit="pdiff_shape_fields", arguments=short)}
    comparison = compare.main(zoos, fits, str(out), n=12, baselines=["copy", "gaussian", "noise-2"])
    return out / "shapes", comparison


def test_shape_fields_go_from_the_zoo_to_a_report_by_label(compared):
    folder, comparison = compared
    rows = {row["name"]: row["values"] for row in read_json(folder / "results.json")["rows"]}
    assert list(rows) == ["zoo", "held-out runs", "pdiff", "copy", "gaussian", "noise-2"]
    assert all(values[key] is not None for values in rows.values() for key in ("nna", "cov", "mmd", "picture_ratio"))
    assert rows["zoo"]["mean"] > rows["noise-2"]["mean"] + 0.1  # IoU
    assert rows["pdiff"]["mmd"] < rows["noise-2"]["mmd"]
    assert {name for name, values in rows.items() if values.get("label_match") is not None} == {
        "zoo",
        "held-out runs",
        "pdiff",
    }
    assert comparison["scores"]["shapes"]["name"] == "IoU with the most similar shape"
    assert (folder / "renders.png").exists()


def test_networks_are_drawn_with_the_labels_of_held_out_ones(compared, tmp_path):
    folder, _ = compared
    drawn = read_json(folder / "samples" / "pdiff" / "samples.json")
    heldout = [entry.condition for entry in Zoo(folder / "zoo").entries if entry.split == "heldout"]
    assert drawn["condition"] == heldout
    checkpoint = str(folder / "fits" / "pdiff" / "last.ckpt")
    half = sample.main(checkpoint, n=6, zoo=str(folder / "zoo"), out=str(tmp_path / "half"))
    assert read_json(half / "samples.json")["condition"] == heldout[::2]


def test_the_label_of_a_copy_is_found_and_that_of_another_kind_is_not(compared):
    folder, _ = compared
    zoo = Zoo(folder / "zoo")
    task = task_of(zoo)
    assert isinstance(task, ShapesTask)
    rows = {row["name"]: row["values"] for row in read_json(folder / "results.json")["rows"]}
    train = zoo.indices("train")
    renders = task.rendered([zoo.full(i) for i in train]).flatten(1)
    apart = torch.cdist(renders, renders).fill_diagonal_(torch.inf).argmin(1).tolist()
    same = [zoo.entries[train[i]].condition == zoo.entries[train[j]].condition for i, j in enumerate(apart)]
    assert rows["zoo"]["label_match"] == pytest.approx(sum(same) / len(same))


def test_fields_of_mnist_are_its_training_images(tmp_path, monkeypatch):
    pictures = digit_pictures()
    grey = (F.interpolate(pictures.grey[:40, None], (28, 28)) * 255).round().byte()[:, 0]
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for kind, array in (("images-idx3", grey), ("labels-idx1", pictures.label[:40].byte())):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        for part in ("train", "t10k"):
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + array.numpy().tobytes())
    monkeypatch.setenv("PARAMGEN_DATA", str(tmp_path))
    grey_pictures.cache_clear()
    family = FieldFamily(fields=4, heldout=4, resolution=28, dataset="mnist")
    name = family.names[0]
    assert name == f"{int(name):02d}"
    torch.testing.assert_close(
        family.pooled([name], "train").targets.view(28, 28), grey[int(name)] / 255, atol=1e-4, rtol=0
    )
    assert family.describe(name).code.argmax() == pictures.label[int(name)]
    zoo = multi.main(family, str(tmp_path / "zoo"), CodeCondition(dim=10), steps=3)
    assert task_of(zoo).evaluate([zoo.full(0)], "test").renders.shape == (1, 28, 28)
    grey_pictures.cache_clear()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ShapeFamily(fields=1990), "fields 1990 and heldout 200 are more than 1998 of the 2000 shapes"),
        (
            lambda: FieldFamily(dataset="cifar10"),
            "'cifar10' has colour images.* Available: digits, mnist, fashion_mnist",
        ),
        (lambda: FieldFamily(dataset="mnist", root="/nowhere"), "dataset 'mnist' is not in /nowhere"),
        (lambda: ShapesTask().data("train"), "ShapesTask has no data: a new field has no target"),
    ],
)
def test_mistakes_with_shapes_and_pictures_are_named(make, expected):
    with pytest.raises(ParamgenError, match=expected):
        make()
