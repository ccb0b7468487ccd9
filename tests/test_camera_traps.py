"""Camera traps from COCO Camera Traps json, on files the test writes."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from paramgen.errors import ParamgenError
from paramgen.tasks import CameraTrapFamily, load_family

SPECIES = ["empty", "zebra", "gnu", "lion", "human"]
GREEN = {name: 40 * i for i, name in enumerate(SPECIES)}


def write_traps(root: Path, locations: dict[str, dict[str, int]], doubles: int = 0) -> None:
    """Images whose green says the species; bursts of two a sequence. `doubles`: images of two species at each location."""
    images, annotations = [], []
    for location, counts in locations.items():
        (root / location).mkdir(parents=True, exist_ok=True)
        shots = [s for s, count in counts.items() for _ in range(count)] + ["gnu"] * doubles
        for i, species in enumerate(shots):
            file = f"{location}/{i}.jpg"
            Image.new("RGB", (24, 18), (i, GREEN[species], 0)).save(root / file, quality=95)
            images.append({"id": file, "file_name": file, "location": location, "seq_id": f"{location}-{i // 2}"})
            labels = [species, "zebra"] if i >= len(shots) - doubles else [species]
            annotations += [{"image_id": file, "category_id": SPECIES.index(s)} for s in labels]
    categories = [{"id": i, "name": name} for i, name in enumerate(SPECIES)]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (root / "traps.json").write_text(json.dumps(content))


COUNTS = {"empty": 8, "zebra": 6, "gnu": 4, "lion": 2, "human": 9}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("traps")
    bare = {"zebra": 6, "gnu": 2}
    write_traps(root, {"A01": COUNTS, "A02": COUNTS, "B01": COUNTS, "C01": bare, "D01": {"human": 4}}, doubles=2)
    return root


def traps(root: Path, **more) -> CameraTrapFamily:
    settings = {"pretrain": ["A01"], "seen": ["A02"], "unseen": ["B01"], "classes": 3, "exclude": ["human"]} | more
    return CameraTrapFamily("traps.json", root=str(root), image_size=16, network="mlp", **settings)


def test_classes_are_empty_and_the_most_frequent_species(root):
    assert traps(root).species == ["empty", "zebra", "gnu"]
    assert traps(root, classes=4).species == ["empty", "zebra", "gnu", "lion"]
    assert traps(root, classes=5, exclude=[]).species == ["empty", "human", "zebra", "gnu", "lion"]


def test_images_of_two_species_or_of_rare_ones_are_left_out(root):
    family = traps(root)
    parts = [family.task("A02").data(split) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == 8 + 6 + 4
    labels = torch.cat([p.targets for p in parts])
    assert torch.bincount(labels).tolist() == [8, 6, 4]


def test_what_is_seen_is_what_the_label_says(root):
    family = traps(root)
    for split in ("train", "val", "test"):
        data = family.task("B01").data(split)
        for x, y in data.batches(4):
            green = 255 * (x[:, 1].mean((1, 2)) * 0.224 + 0.456)
            wanted = torch.tensor([float(GREEN[family.species[label]]) for label in y])
            assert torch.allclose(green, wanted, atol=4)


def test_a_burst_never_stands_in_two_splits(root):
    family = traps(root, val_fraction=0.3, test_fraction=0.3)
    sequences = [{p.sequence for p in family._divided("A02")[s]} for s in ("train", "val", "test")]
    assert all(sequences)
    assert sum(map(len, sequences)) == len(set.union(*sequences))
    assert len(family.pooled(["A02"], "test")) >= 0.3 * 18


def test_pooled_locations_hold_every_image_once(root):
    family = traps(root, seen=["A01", "A02"], pretrain=[])
    assert len(family.pooled(["A01", "A02"], "train")) == sum(len(family.pooled([n], "train")) for n in ("A01", "A02"))
    assert family.pretraining("train") is None


def test_the_background_is_an_empty_train_image_of_its_location(root):
    described = traps(root).describe("B01")
    assert described.background.shape == (3, 16, 16)
    assert described.background[1].mean() < 0.02  # empty is green 0
    assert traps(root).background("B01").startswith("B01/")
    assert len(described.images) > 4


def test_a_location_without_empty_images_has_no_background_unless_one_is_given(root):
    with pytest.raises(ParamgenError, match="'C01' has no background"):
        traps(root, unseen=["C01"]).describe("C01")
    given = traps(root, unseen=["C01"], backgrounds={"C01": "A01/0.jpg"}).describe("C01")
    assert given.background[1].mean() < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seen": ["A2"]}, "Unknown location 'A2'.*Did you mean 'A02'"),
        ({"seen": ["D01"]}, "'D01' has no images"),
        ({"seen": ["A01"]}, "given twice"),
        ({"seen": 4}, "4 locations were requested by number"),
        ({"classes": 9}, "need 8 species"),
    ],
)
def test_locations_and_classes_that_cannot_be_are_refused(root, arguments, message):
    with pytest.raises(ParamgenError, match=message):
        traps(root, **arguments)


def test_locations_by_number_are_drawn_apart_by_seed(root):
    family = traps(root, pretrain=1, seen=2, unseen=1)
    chosen = [*family.pretrain, *family.seen, *family.unseen]
    assert sorted(chosen) == ["A01", "A02", "B01", "C01"]
    again = load_family(family.config())
    assert (again.pretrain, again.seen, again.unseen) == (family.pretrain, family.seen, family.unseen)


def test_files_that_are_missing_damaged_or_something_else_are_named(tmp_path):
    write_traps(tmp_path, {"A01": COUNTS, "A02": COUNTS, "B01": COUNTS})
    with pytest.raises(ParamgenError, match="no such file"):
        CameraTrapFamily("other.json", root=str(tmp_path), pretrain=0, seen=1, unseen=1)
    family = traps(tmp_path)
    victim = next(p.file for p in family._divided("A02")["train"])
    (tmp_path / victim).write_bytes(b"no image")
    with pytest.raises(ParamgenError, match=victim):
        list(family.task("A02").data("train").batches(64))
    (tmp_path / victim).unlink()
    with pytest.raises(ParamgenError, match=f"'A02': no image .*{victim}"):
        family.task("A02").data("train")
    for content, message in (({"images": []}, "no list 'annotations'"), ([], "no list 'images'")):
        (tmp_path / "traps.json").write_text(json.dumps(content))
        with pytest.raises(ParamgenError, match=message):
            traps(tmp_path)
    entry = {"images": [{"id": 1, "file_name": "x.jpg"}], "categories": [{"id": 0, "name": "empty"}]}
    entry["annotations"] = [{"image_id": 1, "category_id": 0}]
    (tmp_path / "traps.json").write_text(json.dumps(entry))
    with pytest.raises(ParamgenError, match="lacks 'location'"):
        traps(tmp_path)


def test_a_location_of_one_burst_cannot_be_split(tmp_path):
    write_traps(tmp_path, {"A01": COUNTS, "A02": COUNTS, "B01": {"empty": 2}})
    with pytest.raises(ParamgenError, match="'B01' has 1 sequences"):
        traps(tmp_path).task("B01").data("train")


def test_images_outside_of_the_root_are_not_read(tmp_path):
    root = tmp_path / "root"
    write_traps(root, {"A01": COUNTS, "A02": COUNTS, "B01": COUNTS})
    content = json.loads((root / "traps.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"../{image['file_name']}"
    (root / "traps.json").write_text(json.dumps(content))
    with pytest.raises(ParamgenError, match=r"cannot read '\.\./A02/.*expected a path inside of"):
        traps(root).task("A02").data("train")
