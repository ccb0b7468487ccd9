"""The contract, over every backend."""

from copy import deepcopy

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from conftest import TinyNet, write_zoo
from every_backend import build, cases, diffuses
from paramgen.core.codec import ParamCodec
from paramgen.core.shards import Shard
from paramgen.core.zoo import Zoo
from paramgen.diffusion import FLOW_SCHEDULERS
from paramgen.errors import ParamgenError
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.callbacks import Float32Ends
from paramgen.generators.loading import load_generator
from paramgen.generators.sampling import SampleRequest
from paramgen.generators.settings import plain_arguments

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}


def fit(name, zoo, path, *, max_steps, ckpt_path=None, data=None, **trainer):
    seed_everything(0)
    model, data = build(cases()[name], str(zoo.path), batch_size=4, steps_per_epoch=4, **(data or {}))
    trainer = Trainer(accelerator="cpu", max_steps=max_steps, max_epochs=-1, num_sanity_val_steps=0, **QUIET, **trainer)
    trainer.fit(model, data, ckpt_path=ckpt_path)
    trainer.save_checkpoint(path)
    return trainer


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("zoo") / "zoo", networks=24)


@pytest.fixture(scope="module", params=cases())
def fitted(request, zoo, tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "x.ckpt"
    return request.param, path, fit(request.param, zoo, path, max_steps=6)


def test_checkpoint_alone_draws_networks_that_load_strictly(fitted):
    _, path, _ = fitted
    networks = load_generator(path).sample(3)
    for state in networks:
        TinyNet().load_state_dict({**state, "norm.num_batches_tracked": torch.tensor(0)}, strict=True)
        assert all(torch.isfinite(t).all() for t in state.values())
        assert (state["norm.running_var"] >= 0).all()
    assert not torch.equal(networks[0]["linear.weight"], networks[1]["linear.weight"])


def test_shards_draw_the_networks_of_one_process_bit_for_bit(fitted):
    name, path, _ = fitted
    model = load_generator(path)
    adds_noise = diffuses(cases()[name]) and model.diffusion.prediction_type != "flow"
    solver = {"scheduler": "DDPM", "num_inference_steps": 3} if adds_noise else {}

    def draw(rows=None):
        return model.draw(SampleRequest(20, generator=torch.Generator().manual_seed(1), rows=rows, **solver))

    whole, shares = draw(), [Shard(number, 2).rows(20) for number in (1, 2)]
    assert sorted([*shares[0], *shares[1]]) == list(range(20))
    for rows in shares:
        part = draw(rows)
        assert torch.equal(part.tokens, whole.tokens[rows])
        assert part.identity == (whole.identity and [whole.identity[row] for row in rows])
        assert part.run == (whole.run and [whole.run[row] for row in rows])


@pytest.mark.parametrize("name", ["pdiff_two_phases", "rpg_conv", "gaussian"])
def test_a_fit_reads_and_encodes_the_zoo_once(name, zoo, tmp_path, monkeypatch):
    read, encoded = [], []
    plain_read, plain_encode = Zoo.__getitem__, ParamCodec.encode_many
    monkeypatch.setattr(Zoo, "__getitem__", lambda self, i: read.append(i) or plain_read(self, i))
    monkeypatch.setattr(
        ParamCodec, "encode_many", lambda self, x, *a: encoded.append(len(x)) or plain_encode(self, x, *a)
    )
    fit(name, zoo, tmp_path / "x.ckpt", max_steps=5, limit_val_batches=0)
    train, val = zoo.indices("train"), zoo.indices("val")
    assert [i for i in sorted(read) if i not in val] == train
    assert sum(encoded) <= len(train) + len(val)


def test_a_fit_from_disk_is_bit_for_bit_one_from_memory(fitted, zoo, tmp_path):
    name, path, trainer = fitted
    from_disk = fit(name, zoo, tmp_path / "x.ckpt", max_steps=6, data={"residency": "disk"})
    assert torch.equal(from_disk.callback_metrics["train/loss"], trainer.callback_metrics["train/loss"])
    assert_same_weights(tmp_path / "x.ckpt", path)


def test_a_fit_on_some_tokens_from_disk_is_bit_for_bit_one_from_memory(zoo, tmp_path):
    for residency in ("ram", "disk"):
        data = {"residency": residency, "tokens_per_step": 3}
        fit("rpg_conv", zoo, tmp_path / residency, max_steps=6, data=data)
    assert_same_weights(tmp_path / "ram", tmp_path / "disk")


def assert_same_weights(*paths):
    one, other = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_same_generator_seed_gives_the_same_networks(fitted):
    _, path, _ = fitted
    model = load_generator(path)
    first, second = (model.sample(2, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a)


def test_arguments_are_plain_and_stored(fitted):
    _, path, trainer = fitted
    saved = torch.load(path, weights_only=True)
    assert dict(saved["hyper_parameters"]) == plain_arguments(trainer.model.hparams)


def test_losses_are_logged_for_training_and_validation(fitted):
    *_, trainer = fitted
    assert "train/loss" in trainer.callback_metrics
    assert "val/loss" in trainer.callback_metrics
    assert all(torch.isfinite(value) for value in trainer.callback_metrics.values())


def test_it_resumes(fitted, zoo, tmp_path):
    name, path, _ = fitted
    trainer = fit(name, zoo, tmp_path / "y.ckpt", max_steps=9, ckpt_path=path)
    assert trainer.global_step == 9


def test_it_learns_in_bf16(fitted, zoo, tmp_path):
    name, *_ = fitted
    trainer = fit(name, zoo, tmp_path / "y.ckpt", max_steps=5, precision="bf16-mixed")
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert len(load_generator(tmp_path / "y.ckpt").sample(2)) == 2


@pytest.mark.parametrize("name", cases())
def test_it_learns_in_float32_at_both_ends_and_in_bf16_between(name, zoo):
    seed_everything(0)
    model, data = build(cases()[name], str(zoo.path), batch_size=4, steps_per_epoch=4)
    loss_of, dtypes = model.loss, []

    def loss(batch):
        dtypes.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        return loss_of(batch)

    model.loss = loss
    ends = Float32Ends(0.25)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=12,
        max_epochs=-1,
        precision="bf16-mixed",
        callbacks=[ends],
        limit_val_batches=0,
        **QUIET,
    )
    trainer.fit(model, data)
    assert dtypes == [torch.float32] * 3 + [torch.bfloat16] * 6 + [torch.float32] * 3
    assert trainer.precision == "bf16-mixed"


@pytest.mark.parametrize("name", [name for name, case in cases().items() if diffuses(case)])
@pytest.mark.parametrize("scheduler", FLOW_SCHEDULERS)
def test_it_learns_and_draws_by_flow_matching(name, scheduler, zoo):
    seed_everything(0)
    case = deepcopy(cases()[name])
    flow = {"prediction_type": "flow", "scheduler": scheduler, "num_inference_steps": 3}
    case["model"].setdefault("init_args", {})["diffusion"] = flow
    model, data = build(case, str(zoo.path), batch_size=4, steps_per_epoch=4)
    trainer = Trainer(accelerator="cpu", max_steps=5, max_epochs=-1, limit_val_batches=0, **QUIET)
    trainer.fit(model, data)
    drawn = model.draw(SampleRequest(2, temperature=0.5, keep_trajectory=True))
    assert (drawn.scheduler, drawn.num_inference_steps) == (scheduler, 3)
    assert torch.isfinite(drawn.tokens).all()
    assert len(drawn.trajectory) > 1
    if not data.tokens_per_step and type(model).denoised is not ParameterGenerator.denoised:
        batch = next(iter(data.train_dataloader()))
        predicted = model.denoised(batch, from_noise=True)
        assert predicted.tokens.shape == batch.x.shape
        assert predicted.tokens.requires_grad
    with pytest.raises(ParamgenError, match="DDIM does not solve prediction_type flow"):
        model.sample(1, scheduler="DDIM")
