"""Families of tasks: relabelings, corruptions, domains."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from paramgen.collect.train import fresh_states, generator
from paramgen.errors import ParamgenError
from paramgen.tasks import (
    ClassificationTask,
    DomainFamily,
    RelabelFamily,
    RotatedFamily,
    TaskFamily,
    load_family,
    load_task,
)
from paramgen.tasks.items import SideBySide
from paramgen.tasks.lora import LoraSettings
from paramgen.tasks.score import CLASSIFIES
from paramgen.tasks.scoring import score_networks
from paramgen.tasks.vision.relabel import all_codes, flipped
from paramgen.tasks.vision.rotated import contrast, rotate, shear, with_noise


def small_relabel(**more) -> RelabelFamily:
    return RelabelFamily(network_args={"hidden": [8]}, **{"seen": 6, "unseen": 3} | more)


def rotations(**more) -> RotatedFamily:
    return RotatedFamily(seen=[-30.0, 0.0, 90.0], unseen=[45.0], network_args={"hidden": [8]}, **more)


@pytest.fixture(scope="module")
def domains(tmp_path_factory) -> Path:
    """Three domains of two classes; a domain's images all have one red value, a class's one green value."""
    root = tmp_path_factory.mktemp("domains")
    for d, domain in enumerate(("art", "photo", "sketch")):
        for c, label in enumerate(("cat", "dog")):
            (root / domain / label).mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (12, 10), (80 * d, 200 * c, i)).save(root / domain / label / f"{i}.png")
    return root


def test_ten_classes_have_1022_codes_none_of_them_constant():
    codes = all_codes(10)
    assert len(set(codes)) == 2**10 - 2
    assert all(len(c) == 10 and set(c) == {"0", "1"} for c in codes)


def test_seen_and_unseen_codes_are_apart_and_drawn_by_seed():
    first, again, other = (RelabelFamily(seen=400, unseen=40, seed=s) for s in (1, 1, 2))
    assert (first.seen, first.unseen) == (again.seen, again.unseen)
    assert set(first.unseen) != set(other.unseen)
    assert len(set(first.names)) == 440


def test_a_relabeled_image_has_its_classs_bit():
    family = small_relabel(seen=["0110010101"], unseen=["1000000000"])
    digits = ClassificationTask("digits").data("test").targets
    bits = torch.tensor([0, 1, 1, 0, 0, 1, 0, 1, 0, 1])
    assert torch.equal(family.task("0110010101").data("test").targets, bits[digits])
    assert torch.equal(family.task("1000000000").data("test").targets, (digits == 0).long())


def test_flipped_codes_turn_every_bit():
    assert flipped("1011101000") == "0100010111"


def test_relabelings_cannot_be_pooled():
    family = small_relabel()
    with pytest.raises(ParamgenError, match="label the same images differently"):
        family.pooled(family.seen[:2], "train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seen": 1000, "unseen": 40}, "only 1022 of the codes"),
        ({"seen": ["0000000000"]}, "is not a code of 10 classes"),
        ({"seen": ["0100000000"], "unseen": ["0100000000"]}, "twice"),
    ],
)
def test_codes_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ParamgenError, match=message):
        small_relabel(**arguments)


def test_rotation_by_a_right_angle_is_rot90_and_back_is_identity():
    x = torch.rand(5, 1, 8, 8) * 16
    assert torch.allclose(rotate(x, 90), torch.rot90(x, 1, (2, 3)), atol=1e-4)
    assert torch.allclose(rotate(rotate(x, 90), -90), x, atol=1e-4)


def test_corruptions_of_no_strength_change_nothing_and_noise_is_the_same_every_time():
    x = torch.rand(5, 1, 8, 8) * 16
    for corrupted in (rotate(x, 0), shear(x, 0), contrast(x, 1), with_noise(x, 0)):
        assert torch.allclose(corrupted, x, atol=1e-4)
    assert torch.equal(with_noise(x, 0.3), with_noise(x, 0.3))
    assert torch.allclose(contrast(x, 0.5).std((1, 2, 3)), 0.5 * x.std((1, 2, 3)), atol=1e-4)


def test_pooled_tasks_hold_every_tasks_images_once():
    family = rotations()
    parts = [next(iter(family.task(n).data("val").batches(10_000))) for n in family.seen]
    pooled, labels = next(iter(family.pooled(family.seen, "val").batches(10_000)))
    assert torch.equal(pooled, torch.cat([x for x, _ in parts]))
    assert torch.equal(labels, torch.cat([y for _, y in parts]))


def test_descriptions_say_the_code_and_show_train_images_under_its_labels():
    described = rotations().describe("rotation+090")
    assert torch.allclose(described.code, torch.tensor([0.0, 1.0]), atol=1e-6)
    assert described.images.min() >= 0
    assert described.images.max() == 1.0
    relabeled = small_relabel(seen=["0110010101"]).describe("0110010101")
    assert relabeled.code.tolist() == [0, 1, 1, 0, 0, 1, 0, 1, 0, 1]
    white = 16 * relabeled.images
    assert torch.allclose(white, white.round(), atol=1e-4)  # digits have 17 grey values
    flipped_code = small_relabel(seen=["1001101010"]).describe("1001101010")
    assert torch.equal(flipped_code.images, relabeled.images)
    assert torch.equal(flipped_code.labels, 1 - relabeled.labels)
    assert set(described.labels.tolist()) == set(range(10))


@pytest.mark.parametrize("make", [small_relabel, rotations])
def test_a_family_is_made_again_from_its_config(make):
    family = make(lora=LoraSettings(["layers.*"], r=2))
    again = load_family(family.config())
    assert again.config() == family.config()
    assert again.names == family.names
    member = load_task(family.task(family.unseen[0]).config())
    assert torch.equal(member.data("test").targets, family.task(family.unseen[0]).data("test").targets)


@pytest.mark.parametrize("make", [small_relabel, rotations])
def test_each_network_is_scored_on_its_own_task(make):
    family = make()
    names = [family.names[i] for i in (0, 2, 1, 0, 3)]
    states = fresh_states(family.build, range(5))
    scores = family.evaluate_each(states, names, "test").value
    for state, name, score in zip(states, names, scores, strict=True):
        task = family.task(name)
        assert float(score_networks(CLASSIFIES, task.build(), [state], task.data("test")).value[0]) == pytest.approx(
            float(score)
        )


def test_a_network_that_is_right_on_a_code_is_wrong_on_the_flipped_one():
    family = small_relabel(seen=["1011101000"], unseen=["0100010111"])
    (state,) = fresh_states(family.build, [0])
    right, wrong = family.evaluate_each([state, state], family.names, "test").value
    assert float(right + wrong) == pytest.approx(1.0)


@pytest.mark.parametrize("make", [small_relabel, rotations])
def test_side_by_side_each_network_sees_what_it_would_see_alone(make):
    family = make()
    splits = [family.task(n).data("train") for n in family.names[:3]]
    order = torch.randint(len(splits[0]), (4, 3, 5), generator=generator(0))
    together = list(SideBySide(splits).training_batches(order, [generator(i) for i in range(3)]))
    for r, split in enumerate(splits):
        for (x, y), (x_alone, y_alone) in zip(
            together, split.training_batches(order[:, r : r + 1], [generator(r)]), strict=True
        ):
            assert torch.equal(x[r], x_alone[0])
            assert torch.equal(y[r], y_alone[0])


def test_a_family_is_not_taken_for_one_task():
    with pytest.raises(ParamgenError, match=r"family of many tasks.*paramgen evaluate"):
        load_task(small_relabel().config())


def test_a_family_of_one_task_is_that_task():
    family = RotatedFamily(seen=[30.0], unseen=[], network_args={"hidden": [8]})
    task = load_task(family.config())
    assert torch.equal(
        next(task.data("test").batches(9))[0], next(family.pooled(["rotation+030"], "test").batches(9))[0]
    )


def test_a_single_task_is_a_family_of_one():
    task = ClassificationTask(network_args={"hidden": [8]})
    assert isinstance(task, TaskFamily)
    assert (task.names, list(task.seen), list(task.unseen), task.lora) == ([None], [], [], None)
    assert task.task(None) is task.task() is task
    assert load_family(task.config()).config() == task.config()
    assert torch.equal(task.pooled([], "val").targets, task.data("val").targets)
    assert task.pretraining("train") is None
    states = fresh_states(task.build, range(3))
    alone, each = task.evaluate(states, "val", 50), task.evaluate_each(states, [None] * 3, "val", 50)
    for one, other in ((alone.value, each.value), (alone.loss, each.loss), (alone.items, each.items)):
        assert torch.equal(one, other)
    with pytest.raises(ParamgenError, match="Unknown task 'x'"):
        task.evaluate_each(states, ["x"] * 3, "val")
    with pytest.raises(ParamgenError, match="describes no task"):
        task.describe("x")


@pytest.mark.parametrize("make", [small_relabel, rotations])
def test_each_network_has_the_loss_and_the_answers_that_it_has_on_its_task_alone(make):
    family = make()
    names = [family.names[i] for i in (1, 0, 1, 2)]
    states = fresh_states(family.build, range(4))
    found = family.evaluate_each(states, names, "val")
    for i, (state, name) in enumerate(zip(states, names, strict=True)):
        alone = family.task(name).evaluate([state], "val")
        assert found.loss[i] == pytest.approx(alone.loss.item(), rel=1e-5)
        assert torch.equal(found.items[i], alone.items[0])
        assert torch.equal(found.predictions[i], alone.predictions[0])
    assert found.value.tolist() == found.items.double().mean(1).tolist()


def test_networks_of_tasks_of_different_sizes_have_scores_and_no_common_items(tmp_path):
    for domain, count in (("a", 10), ("b", 20)):
        for label in ("cat", "dog"):
            (tmp_path / domain / label).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 8), (i, 10 * i, 0)).save(tmp_path / domain / label / f"{i}.png")
    family = DomainFamily(unseen=[], root=str(tmp_path), image_size=8, network="mlp")
    states = fresh_states(family.build, range(3))
    found = family.evaluate_each(states, ["b", "a", "b"], "test")
    assert found.items is None
    alone = [family.task(n).evaluate([s], "test").value.item() for n, s in zip("bab", states, strict=True)]
    assert found.value.tolist() == alone


def test_unknown_tasks_splits_and_levels_are_named():
    family = rotations()
    with pytest.raises(ParamgenError, match=r"rotation\+091.*Did you mean 'rotation\+090'"):
        family.task("rotation+091")
    with pytest.raises(ParamgenError, match="expected train, val or test"):
        family.pooled(family.seen[:1], "dev")
    with pytest.raises(ParamgenError, match="each level once"):
        RotatedFamily(seen=[0.0, 10.0], unseen=[10.0])
    with pytest.raises(ParamgenError, match="each level once, to six digits"):
        RotatedFamily(seen=[0.1234567, 0.12345674], unseen=[1.0], corruption="noise")  # their names are equal
    with pytest.raises(
        ParamgenError, match=r"a set of 100 classes has 2\^100 relabelings, expected 16 classes or fewer"
    ):
        RelabelFamily("cifar100")
    with pytest.raises(ParamgenError, match=r"Unknown task family 'RotateFamily'. Did you mean 'RotatedFamily'"):
        load_family({"class_path": "RotateFamily"})


def test_one_domain_is_left_out_and_its_images_are_its_own(domains):
    family = DomainFamily(unseen=["sketch"], root=str(domains), image_size=8, network="mlp")
    assert (family.seen, family.unseen, family.classes) == (["art", "photo"], ["sketch"], ["cat", "dog"])
    for d, name in enumerate(("art", "photo", "sketch")):
        parts = [family.task(name).data(split) for split in ("train", "val", "test")]
        assert [len(p) for p in parts] == [14, 2, 4]
        blue = torch.cat([p.raw[:, 2, 0, 0] for p in parts])
        labels = torch.cat([p.targets for p in parts])
        for c in (0, 1):
            assert sorted(blue[labels == c].tolist()) == list(range(10))  # every image in one split alone
        assert all((p.raw[:, 0] == 80 * d).all() for p in parts)
        assert all((p.raw[:, 1, 0, 0] == 200 * p.targets).all() for p in parts)
    assert len(family.pooled(family.seen, "train")) == 28
    assert family.pretraining("train") is None


def test_domains_that_do_not_fit_are_refused(domains, tmp_path):
    with pytest.raises(ParamgenError, match=r"Unknown domain 'skech'.*Did you mean 'sketch'"):
        DomainFamily(unseen=["skech"], root=str(domains))
    with pytest.raises(ParamgenError, match="0 domain folders"):
        DomainFamily(unseen=[], root=str(tmp_path / "nothing"))
    with pytest.raises(ParamgenError, match="every domain is unseen"):
        DomainFamily(unseen=["art", "photo", "sketch"], root=str(domains))
    for folder in ("a/cat", "a/dog", "b/cat", "b/hen"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ParamgenError, match="differ in their classes: dog, hen"):
        DomainFamily(unseen=["a"], root=str(tmp_path))
