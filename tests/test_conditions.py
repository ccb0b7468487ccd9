"""Conditions: each kind of description of a task, and how it enters a network."""

import json
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from paramgen.errors import ParamgenError
from paramgen.generators.sampling import one_for_each
from paramgen.nn.condition import ConditionInput, FiLM, guided
from paramgen.nn.unet1d import ConvChain, MLPDenoiser, UNet1d
from paramgen.tasks.base import Description
from paramgen.tasks.conditions import CodeCondition, ImageCondition, load_encoder

TOWER = {"name": "test_vit", "pretrained": False}


def describe(index=0, *, name=None, code=(1.0, 0.0, 1.0), background=True, images=6, channels=1):
    generator = torch.Generator().manual_seed(index)
    return Description(
        name=name or f"task{index}",
        index=index,
        code=None if code is None else torch.tensor(code),
        background=torch.rand(channels, 20, 30, generator=generator) if background else None,
        images=torch.rand(images, channels, 8, 8, generator=generator),
        labels=torch.arange(images) % 2,
    )


TASKS = [describe(i) for i in range(3)]


def encode(tasks, kind, **arguments):
    encoder = load_encoder({"kind": kind, **arguments}, trust=True)
    return torch.stack([encoder.encode(task) for task in tasks])


@pytest.mark.parametrize(
    ("kind", "arguments", "dim"),
    [
        ("code", {"dim": 3}, 3),
        ("label", {"num_tasks": 3}, 3),
        ("label", {"num_tasks": 3, "width": 7}, 7),
        ("image", TOWER, 64),
        ("statistics", {}, 128),
        ("statistics", {"space": "features", **TOWER}, 128),
        ("statistics", {"classes": 2}, 256),
    ],
)
def test_recorded_encoder_gives_the_same_conditions(kind, arguments, dim):
    encoder = load_encoder({"kind": kind, **arguments})
    again = load_encoder(json.loads(json.dumps(encoder.config())))
    assert again.config()["dim"] == encoder.dim == dim
    for task in TASKS:
        assert encoder.encode(task).shape == (dim,)
        assert torch.equal(encoder.encode(task), again.encode(task))


def test_labels_are_apart_whatever_their_form():
    assert torch.equal(encode(TASKS, "label", num_tasks=3), torch.eye(3))
    rows = encode(TASKS, "label", num_tasks=3, width=50)
    assert torch.pdist(rows).min() > 1


def test_pixel_statistics_are_mean_and_spread_of_the_images():
    images = TASKS[1].images[:4].flatten(1).double().numpy()
    expected = np.concatenate([images.mean(0), images.std(0)])
    assert np.allclose(encode(TASKS, "statistics", images=4)[1], expected, atol=1e-6)


def test_statistics_of_classes_are_those_of_each_classs_images():
    task = TASKS[1]
    both = encode([task], "statistics", classes=2)[0]
    for label in (0, 1):
        alone = replace(task, images=task.images[task.labels == label], labels=None)
        torch.testing.assert_close(both[128 * label : 128 * (label + 1)], encode([alone], "statistics")[0])


def test_tower_sees_the_image_normalised_as_timm_says():
    encoder = ImageCondition(**TOWER)
    task = describe(5, channels=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("test_vit", pretrained=False, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(network)
    height = config["input_size"][1]
    image = torch.nn.functional.interpolate(task.background[None], (height, height), mode="bicubic", antialias=True)
    image = (image.clamp(0, 1) - torch.tensor(config["mean"]).view(3, 1, 1)) / torch.tensor(config["std"]).view(3, 1, 1)
    expected = network(image)[0]
    assert torch.allclose(
        torch.nn.functional.cosine_similarity(encoder.encode(task), expected, dim=0), torch.ones(()), atol=1e-5
    )


def test_local_weights_are_those_of_the_file(tmp_path):
    torch.manual_seed(3)
    published = timm.create_model("test_vit", pretrained=False, num_classes=0).eval()
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    local = ImageCondition("test_vit", weights=str(tmp_path / "model.safetensors"))
    other = ImageCondition("test_vit", pretrained=False)
    task = describe(channels=3)
    state = {k: v for k, v in published.state_dict().items() if not k.startswith("head")}
    local.encode(task)
    assert all(torch.equal(local._network.state_dict()[k], v) for k, v in state.items())
    assert not torch.allclose(local.encode(task), other.encode(task))


def test_embeddings_from_files_go_by_name_or_by_order(tmp_path):
    rows = torch.randn(3, 5)
    save_file({task.name: row.clone() for task, row in zip(TASKS, rows, strict=True)}, tmp_path / "e.safetensors")
    np.save(tmp_path / "e.npy", rows.numpy())
    for file in ("e.safetensors", "e.npy"):
        assert torch.equal(encode(TASKS[::-1], "file", path=str(tmp_path / file)), rows.flip(0))


@pytest.mark.parametrize(
    ("task", "kind", "arguments", "said"),
    [
        (describe(), "cod", {}, "Unknown condition kind 'cod'. Did you mean 'code'"),
        (describe(), "code", {"dims": 3}, "has no argument 'dims'"),
        (describe(), "code", {"dim": 4}, "has 3 numbers, expected 4"),
        (describe(), "label", {"num_tasks": 3, "width": 0}, "condition width is 0, expected 1 or more"),
        (describe(code=None), "code", {"dim": 3}, "'task0' has no code"),
        (describe(background=False), "image", TOWER, "'task0' has no background"),
        (describe(images=0), "statistics", {}, "has 0 image"),
        (describe(), "statistics", {"classes": 3}, "none of class 2"),
        (replace(describe(), labels=None), "statistics", {"classes": 2}, "has no labels"),
        (describe(), "image", {"name": "vit_base_clip"}, "Unknown timm network 'vit_base_clip'"),
        (
            describe(),
            "image",
            {"weights": "nowhere.safetensors"},
            "get model.safetensors from https://huggingface.co/timm/vit",
        ),
        (describe(), "file", {"path": "nowhere.npy"}, "nowhere.npy"),
        (describe(), "file", {"path": "e.csv"}, "expected .safetensors or .npy"),
        (describe(), "file", {}, "needs 'path'"),
    ],
)
def test_mistakes_say_what_is_there(task, kind, arguments, said):
    with pytest.raises(ParamgenError, match="(?s)" + said.replace("(", r"\(")):
        encode([task], kind, **arguments)


def test_pretrained_weights_that_cannot_be_downloaded_are_named(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", "/nonexistent")
    with pytest.raises(
        ParamgenError, match=r"get model\.safetensors from https://huggingface\.co/timm/vit_base_patch32"
    ):
        encode(TASKS, "image", name="vit_base_patch32_clip_224.laion2b_ft_in12k_in1k")


def test_a_label_or_a_file_knows_no_other_task(tmp_path):
    np.save(tmp_path / "e.npy", np.zeros((2, 5), np.float32))
    for encoder in (
        load_encoder({"kind": "label", "num_tasks": 2}),
        load_encoder({"kind": "file", "path": str(tmp_path / "e.npy")}, trust=True),
    ):
        with pytest.raises(ParamgenError, match="'task2'"):
            encoder.encode(TASKS[2])


def test_configs_are_plain():
    assert CodeCondition(3).config() == {"kind": "code", "dim": 3}


def test_conditions_enter_standardised_and_constant_numbers_do_not():
    conditions = torch.randn(50, 3) * torch.tensor([1e3, 1e-2, 0.0]) + 5
    entry, same = ConditionInput(3, 8), ConditionInput(3, 8)
    same.load_state_dict(entry.state_dict())
    entry.standardise(conditions)
    z = (conditions - conditions.mean(0)) / conditions.std(0, correction=0)
    z[:, 2] = 0
    assert torch.allclose(entry(entry.mark(conditions, 50)), same(same.mark(z, 50)), atol=1e-4)
    moved = conditions + torch.tensor([0, 0, 9.0])
    assert torch.allclose(entry(entry.mark(conditions, 50)), entry(entry.mark(moved, 50)), atol=1e-4)


def test_left_out_conditions_are_as_many_as_asked_and_all_alike():
    entry = ConditionInput(4, 8, dropout=0.3).train()
    marked = entry.mark(torch.randn(4000, 4), 4000, entry.kept(4000))
    absent = marked[:, -1] == 0
    assert 0.27 < absent.float().mean() < 0.33
    assert torch.equal(entry(marked[absent]), entry(entry.mark(None, int(absent.sum()))))
    assert entry.eval().kept(100) is None
    assert entry.mark(torch.randn(100, 4), 100)[:, -1].all()


def test_condition_of_a_wrong_width_or_missing_is_refused():
    with pytest.raises(ParamgenError, match="has 5 numbers, the generator takes 4"):
        ConditionInput(4, 8).mark(torch.zeros(2, 5), 2)
    with pytest.raises(ParamgenError, match="needs a condition of 4 numbers"):
        ConditionInput(4, 8).mark(None, 2)


def test_a_condition_is_given_for_each_network_or_for_all():
    assert one_for_each(None, 2) is None
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert torch.equal(one_for_each(rows, 2), rows)
    assert torch.equal(one_for_each([1, 2], 3), rows[:1].expand(3, 2))
    with pytest.raises(ParamgenError, match=r"has the shape \(2, 2\), expected \(3, C\), or \(C,\) for all"):
        one_for_each(rows, 3)
    for wrong in ("night", [[1.0], [1.0, 2.0]]):
        with pytest.raises(ParamgenError, match="expected numbers"):
            one_for_each(wrong, 2)


def test_film_starts_as_the_identity_and_then_scales_and_shifts_each_channel():
    film, h, c = FiLM(5, 3), torch.randn(2, 3, 7), torch.randn(2, 5)
    assert torch.equal(film(h, c), h)
    torch.nn.init.normal_(film.layer.weight)
    scale, shift = film.layer(c).chunk(2, 1)
    assert torch.allclose(film(h, c), torch.einsum("bcl,bc->bcl", h, 1 + scale) + shift[:, :, None], atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guidance_is_that_of_the_product_of_gaussians(scale):
    # with scores s_c of N(m_c, 1) and s_u of N(0, 1), guidance is the score of N(scale m_c, 1)
    mean = 0.7
    denoise = guided(lambda x, t: x - mean, lambda x, t: x, scale)
    x = torch.randn(9)
    assert torch.allclose(denoise(x, torch.zeros(1)), x - scale * mean)


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("kind", ["unet", "conv", "mlp"])
def test_every_denoiser_hears_its_condition_through_every_layer_of_film(kind, norm):
    torch.manual_seed(0)
    denoiser = {
        "unet": lambda: UNet1d(2, (4, 8), norm=norm, cond_width=5),
        "conv": lambda: ConvChain((2, 16), (4, 8), norm=norm, cond_width=5),
        "mlp": lambda: MLPDenoiser((2, 16), 8, 2, cond_width=5),
    }[kind]()
    z, t, c = torch.randn(3, 2, 16), torch.tensor([1, 5, 9]), torch.randn(2, 3, 5)
    for layer in [*denoiser.film, *(m for m in denoiser.modules() if isinstance(m, torch.nn.Linear))]:
        torch.nn.init.normal_(getattr(layer, "layer", layer).weight)
    for film in denoiser.film:
        others = [f.layer.weight.detach().clone() for f in denoiser.film]
        for f in denoiser.film:
            if f is not film:
                torch.nn.init.zeros_(f.layer.weight)
        assert not torch.allclose(denoiser(z, t, c[0]), denoiser(z, t, c[1]), atol=1e-3)
        for f, weight in zip(denoiser.film, others, strict=True):
            f.layer.weight.data.copy_(weight)
