"""The behavioural loss: what is computed, from which data, and what it does to a generator."""

import json

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.nn import functional as F

from dotted import nest
from gaussian_backend import GaussianBackend
from paramgen.backends.pdiff import PDiff
from paramgen.backends.rpg import RPG
from paramgen.cli.commands.sample import main as sample
from paramgen.core.codec import FlatCodec, TokenCodec
from paramgen.core.params import ParamSpec
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError
from paramgen.generators.base import Denoised
from paramgen.generators.batches import ParamBatch
from paramgen.generators.behaviour import BehaviouralLoss
from paramgen.generators.callbacks import SampleQuality
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.loading import load_generator
from paramgen.tasks import ClassificationTask, load_family
from paramgen.tasks.score import CLASSIFIES
from paramgen.tasks.scoring import score_networks
from paramgen.tasks.vision.relabel import RelabelFamily

QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
    "enable_checkpointing": False,
    "accelerator": "cpu",
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
}
DIRECT = {
    "autoencoder.kind": "none",
    "denoiser.kind": "mlp",
    "denoiser.width": 64,
    "denoiser.depth": 2,
    "diffusion.prediction_type": "sample",
    "optimizer.lr": 3e-3,
}


def write(path, task, names, base=None):
    """A zoo of untrained networks: nothing but the task's data can make them good."""
    base, writer = base or {}, None
    for i in range(8):
        torch.manual_seed(i)
        state = task.build().state_dict()
        spec = ParamSpec.of(state, [tensor for tensor in state if tensor not in base])
        writer = writer or ZooWriter(path, spec, base, task.config(), {"made": "by a test"})
        name = names[i % len(names)]
        writer.add(
            {n: state[n] for n in spec.names},
            run=i,
            step=0,
            seed=i,
            task=name,
            condition=None if name is None else [float(b) for b in name],
        )
    return writer.close()


@pytest.fixture(scope="module")
def one_task(tmp_path_factory):
    task = ClassificationTask(network="mlp", network_args={"hidden": [12]})
    return write(tmp_path_factory.mktemp("one") / "zoo", task, [None])


@pytest.fixture(scope="module")
def family_zoo(tmp_path_factory):
    seen, unseen = ["0000011111", "0101010101"], ["0011001100"]
    family = RelabelFamily(network_args={"hidden": [6]}, seen=seen, unseen=unseen)
    return write(tmp_path_factory.mktemp("family") / "zoo", family, seen)


def fit(zoo, make, callback, max_steps, codec=None, **data_arguments):
    seed_everything(0)
    data = ParameterDataModule(str(zoo.path), codec or FlatCodec(), batch_size=8, **data_arguments)
    model = make(data)
    trainer = Trainer(max_steps=max_steps, callbacks=[callback], **QUIET)
    trainer.fit(model, data)
    return model, trainer


def direct(data):
    return PDiff(data.seq_len, data.token_dim, data.num_networks, data.cond_dim, **nest(DIRECT))


def test_loss_is_that_of_the_plain_networks_on_their_own_tasks(family_zoo):
    callback = BehaviouralLoss(images_per_step=5)
    model, _ = fit(family_zoo, direct, callback, 1)
    family = load_family(family_zoo.task_config)
    x, y = callback._draw([0, 1, 2], torch.device("cpu"))
    assert x.shape[:2] == y.shape == (3, 5)
    tokens = torch.randn(3, *model.codec.shape)
    losses = callback.task_loss(model.codec.decode_stacked(tokens), x, y)
    for i, state in enumerate(model.codec.decode_many(tokens)):
        network = family.build()
        network.load_state_dict(state)
        assert losses[i].item() == pytest.approx(F.cross_entropy(network(x[i]), y[i]).item(), rel=1e-4)


def test_convolutional_networks_run_one_by_one_give_the_same(tmp_path):
    zoo = write(
        tmp_path / "zoo", ClassificationTask(network="cnn_digits", network_args={"channels": [2, 2, 2]}), [None]
    )
    callback = BehaviouralLoss(images_per_step=5)
    model, _ = fit(zoo, direct, callback, 1)
    x, y = callback._draw([0, 1, 2], torch.device("cpu"))
    assert not callback._stacked
    losses, gradients = [], []
    for callback._stacked in (False, True):
        tokens = torch.ones(3, *model.codec.shape).requires_grad_()
        losses.append(callback.task_loss(model.codec.decode_stacked(tokens), x, y))
        gradients += torch.autograd.grad(losses[-1].sum(), tokens)
    assert torch.allclose(*losses, rtol=1e-4)
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-6)
    assert gradients[0].abs().max() > 0


def test_gradient_reaches_the_tokens_and_is_that_of_finite_differences(family_zoo):
    callback = BehaviouralLoss(images_per_step=5)
    model, _ = fit(family_zoo, direct, callback, 1)
    x, y = callback._draw([0, 1], torch.device("cpu"))
    tokens = torch.randn(2, *model.codec.shape, requires_grad=True)
    direction = F.normalize(torch.randn_like(tokens).flatten(), dim=0).view_as(tokens)

    def total(moved):
        return callback.task_loss(model.codec.decode_stacked(moved), x, y).sum()

    (gradient,) = torch.autograd.grad(total(tokens), tokens)
    with torch.no_grad():
        slope = (total(tokens + 1e-2 * direction) - total(tokens - 1e-2 * direction)) / 2e-2
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=0.05, abs=2e-3)


def test_only_train_images_of_seen_tasks_are_read(family_zoo, monkeypatch):
    read, plain = [], RelabelFamily.pooled

    def pooled(self, names, split):
        read.append((tuple(names), split))
        return plain(self, names, split)

    monkeypatch.setattr(RelabelFamily, "pooled", pooled)
    fit(family_zoo, direct, BehaviouralLoss(images_per_step=5), 2)
    assert set(read) == {((name,), "train") for name in load_family(family_zoo.task_config).seen}


def test_each_network_is_run_on_its_own_tasks_labels(family_zoo):
    callback = BehaviouralLoss(images_per_step=400)
    _, trainer = fit(family_zoo, direct, callback, 1)
    codes = {e.task for e in family_zoo.entries}
    assert codes == {"0000011111", "0101010101"}
    for i in (0, 1):
        x, y = callback._draw([i], torch.device("cpu"))
        code = trainer.datamodule.zoo.entries[i].task
        images = ClassificationTask(network="mlp", augment=False).data("train")
        known = {
            tuple(pixels.flatten().tolist()): int(label)
            for pixels, label in zip(images.images, images.targets, strict=True)
        }
        digits = [known[tuple(pixels.flatten().tolist())] for pixels in x[0]]
        assert y[0].tolist() == [int(code[digit]) for digit in digits]


def test_networks_drawn_after_it_do_what_no_network_of_the_zoo_does(one_task):
    task = ClassificationTask(network="mlp", network_args={"hidden": [12]})
    assert (
        score_networks(CLASSIFIES, task.build(), [one_task.full(i) for i in range(8)], task.data("val")).value.max()
        < 0.3
    )
    model, _ = fit(one_task, direct, BehaviouralLoss(weight=1.0, images_per_step=32, signal_weighting=False), 300)
    drawn = model.sample(4, scheduler="DDIM", num_inference_steps=5)
    assert score_networks(CLASSIFIES, task.build(), drawn, task.data("val")).value.mean() > 0.7


def test_checkpoint_and_samples_say_that_task_data_was_used(one_task, tmp_path):
    for name, callbacks in (("with", BehaviouralLoss(images_per_step=4)), ("without", None)):
        seed_everything(0)
        data = ParameterDataModule(str(one_task.path), batch_size=8)
        trainer = Trainer(max_steps=2, callbacks=callbacks, **QUIET)
        trainer.fit(direct(data), data)
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
        assert load_generator(tmp_path / f"{name}.ckpt").uses_task_data is (name == "with")
        sample(str(tmp_path / f"{name}.ckpt"), n=1, out=str(tmp_path / name), scheduler="DDIM", num_inference_steps=2)
        assert json.loads((tmp_path / name / "samples.json").read_text())["uses_task_data"] is (name == "with")


def test_networks_predicted_from_pure_noise_count_for_nothing_where_signal_is_weighed(one_task):
    callback = BehaviouralLoss(images_per_step=4)
    model, trainer = fit(one_task, direct, callback, 1)
    batch: ParamBatch = next(iter(trainer.datamodule.train_dataloader()))
    predicted = model.denoised(batch)
    model.denoised = lambda batch, from_noise: predicted._replace(signal=torch.zeros(len(predicted.tokens)))
    assert callback.loss(model, batch) == 0
    callback.signal_weighting = False
    assert callback.loss(model, batch) > 0.1


def test_networks_with_less_signal_than_asked_are_not_run(one_task):
    model, trainer = fit(one_task, direct, BehaviouralLoss(images_per_step=5, least_signal=0.5), 1)
    callback, batch = trainer.callbacks[0], next(iter(trainer.datamodule.train_dataloader()))
    tokens = batch.x.clone().requires_grad_()
    signal = torch.tensor([0.1, 0.9, 0.5, 0.4, 0.0, 0.2, 0.3, 0.45])
    model.denoised = lambda batch, from_noise: Denoised(tokens, signal)
    (gradient,) = torch.autograd.grad(callback.loss(model, batch), tokens)
    assert gradient.flatten(1).any(1).tolist() == [False, True, True, *[False] * 5]
    model.denoised = lambda batch, from_noise: Denoised(tokens, 0 * signal)
    loss = callback.loss(model, batch)
    assert loss == 0
    assert not torch.autograd.grad(loss, tokens)[0].any()


@pytest.mark.parametrize("two_phases", [False, True])
def test_pdiff_learns_with_it_in_both_phases(one_task, two_phases):
    small = (
        {"autoencoder.steps": 2, "autoencoder.channels": [4, 4], "denoiser.channels": [4, 4]} if two_phases else DIRECT
    )
    callback = BehaviouralLoss(images_per_step=4, networks_per_step=3)
    _, trainer = fit(one_task, lambda d: PDiff(d.seq_len, d.token_dim, d.num_networks, **nest(small)), callback, 4)
    assert torch.isfinite(trainer.callback_metrics["train/behaviour_loss"])


def rpg(data):
    small = nest(
        {
            "recurrence.d_model": [16],
            "recurrence.kind": "lstm",
            "head.kind": "mlp",
            "head.hidden": 16,
            "state.kind": "none",
        }
    )
    return RPG(data.seq_len, data.token_dim, data.num_networks, data.num_runs, data.cond_dim, **small)


def test_rpg_predicts_whole_networks_under_their_conditions(family_zoo):
    _, trainer = fit(family_zoo, rpg, BehaviouralLoss(images_per_step=4), 2, codec=TokenCodec(32))
    assert torch.isfinite(trainer.callback_metrics["train/behaviour_loss"])


def test_mistakes_are_said(one_task, family_zoo):
    with pytest.raises(ParamgenError, match="images_per_step is 0"):
        BehaviouralLoss(images_per_step=0)
    with pytest.raises(ParamgenError, match="signal_weighting: false"):
        BehaviouralLoss(from_noise=True)
    with pytest.raises(ParamgenError, match=r"remove data\.tokens_per_step"):
        fit(family_zoo, rpg, BehaviouralLoss(), 1, codec=TokenCodec(32), tokens_per_step=2)
    with pytest.raises(ParamgenError, match="GaussianBackend has no behavioural loss"):
        fit(one_task, lambda d: GaussianBackend(d.seq_len, d.token_dim), BehaviouralLoss(), 1)


def test_quality_is_seen_on_the_task_of_each_sample(family_zoo):
    model, trainer = fit(family_zoo, direct, BehaviouralLoss(images_per_step=4), 1)
    asked = []

    def give_back(n, condition):
        asked.append(condition)
        return [family_zoo[i] for i in (0, 2, 5, 7)]

    model.sample = give_back
    found = SampleQuality(n=4).look(model, trainer.datamodule)
    family = load_family(family_zoo.task_config)
    names = [family_zoo.entries[i].task for i in (0, 2, 5, 7)]
    assert asked[0].tolist() == [[float(bit) for bit in name] for name in names]
    expected = [
        score_networks(CLASSIFIES, family.build(), [family_zoo.full(i)], family.task(name).data("val")).value.item()
        for i, name in zip((0, 2, 5, 7), names, strict=True)
    ]
    assert found["sample/score_mean"] == pytest.approx(sum(expected) / 4)


@pytest.mark.parametrize("backend", ["p-diff", "rpg"])
def test_from_noise_predicts_from_the_noisiest_step(family_zoo, backend):
    make, codec = (direct, None) if backend == "p-diff" else (rpg, TokenCodec(32))
    model, trainer = fit(family_zoo, make, BehaviouralLoss(signal_weighting=False, from_noise=True), 1, codec)
    batch = next(iter(trainer.datamodule.train_dataloader()))
    last = model.diffusion.alphas_cumprod()[-1]
    signal = model.denoised(batch, from_noise=True).signal
    torch.testing.assert_close(signal, last.expand_as(signal))
    assert model.denoised(batch).signal.unique().numel() > 1
