"""The contract's shared half, seen through the smallest backend."""

import json

import pytest
import torch
from lightning.pytorch import Trainer

from conftest import TinyNet, write_zoo
from gaussian_backend import GaussianBackend
from paramgen.core.codec import TokenCodec
from paramgen.errors import ParamgenError
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.loading import load_generator


def fit(zoo, folder, *, codec=None, max_steps=300, ckpt_path=None, **trainer):
    data = ParameterDataModule(str(zoo.path), codec, batch_size=4, steps_per_epoch=50)
    model = GaussianBackend(data.seq_len, data.token_dim)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "num_sanity_val_steps": 0}
    arguments = {
        "accelerator": "cpu",
        "max_steps": max_steps,
        "max_epochs": -1,
        "default_root_dir": folder,
        **quiet,
        **trainer,
    }
    trainer = Trainer(**arguments)
    trainer.fit(model, data, ckpt_path=ckpt_path)
    path = folder / f"{max_steps}.ckpt"
    trainer.save_checkpoint(path)
    return model, path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    zoo = write_zoo(folder / "zoo", networks=12)
    model, path = fit(zoo, folder)
    return zoo, model, path


def test_checkpoint_samples_without_zoo_and_yaml(fitted):
    zoo, _, path = fitted
    networks = load_generator(path).sample(5)
    assert len(networks) == 5
    for state in networks:
        TinyNet().load_state_dict({**state, "norm.num_batches_tracked": torch.tensor(0)}, strict=True)
        assert torch.equal(state["steps"], zoo.base()["steps"])


def test_samples_have_the_mean_of_the_training_networks(fitted):
    zoo, _, path = fitted
    samples = zoo.spec.flatten_many(load_generator(path).sample(400))
    train = zoo.matrix(zoo.indices("train"))
    weight = slice(2, 14)
    assert (samples.mean(0) - train.mean(0))[weight].abs().max() < 0.35


def test_checkpoint_loads_weights_only(fitted):
    *_, path = fitted
    saved = torch.load(path, weights_only=True)
    assert saved["paramgen"]["class_path"].endswith("GaussianBackend")
    assert saved["paramgen"]["fit_seconds"] > 0


def test_what_it_takes_to_store_a_generator_is_less_than_its_checkpoint_and_more_than_its_parameters(fitted):
    *_, path = fitted
    model = load_generator(path)
    least = 4 * sum(p.numel() for p in model.parameters())
    model.register_buffer("basis", torch.zeros(1000))
    assert least + 4000 < model.stored_bytes() < path.stat().st_size + 4000


def test_same_seed_gives_the_same_networks(fitted):
    *_, path = fitted
    model = load_generator(path)
    first, second = (model.sample(2, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first[1]["linear.weight"], second[1]["linear.weight"])


def test_no_networks_is_refused(fitted):
    *_, path = fitted
    with pytest.raises(ParamgenError, match="n is 0"):
        load_generator(path).sample(0)


def test_resume_goes_on_where_it_stopped(fitted, tmp_path):
    zoo, *_ = fitted
    _, path = fit(zoo, tmp_path, max_steps=20)
    _, path = fit(zoo, tmp_path, max_steps=30, ckpt_path=path)
    assert torch.load(path, weights_only=True)["global_step"] == 30


def test_checkpoint_of_other_tokens_is_refused(fitted, tmp_path):
    zoo, *_ = fitted
    _, path = fit(zoo, tmp_path, codec=TokenCodec(5, "flatten"), max_steps=5)
    with pytest.raises(ParamgenError, match="made with the codec"):
        fit(zoo, tmp_path, codec=TokenCodec(5, "layer", "centre"), max_steps=6, ckpt_path=path)


def test_checkpoint_of_another_zoo_is_refused(fitted, tmp_path):
    *_, path = fitted
    other = write_zoo(tmp_path / "zoo", networks=15)
    with pytest.raises(ParamgenError, match="statistics differ"):
        fit(other, tmp_path, max_steps=400, ckpt_path=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "checkpoint not found"),
        (b"garbage", "cannot read"),
        ({"state_dict": {}}, "not a paramgen checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, message):
    path = tmp_path / "x.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ParamgenError, match=message):
        load_generator(path)


def test_checkpoint_with_code_in_it_is_not_run(tmp_path):
    torch.save({"paramgen": json.loads}, tmp_path / "x.ckpt")
    with pytest.raises(ParamgenError, match=r"object of json\.loads"):
        load_generator(tmp_path / "x.ckpt")
