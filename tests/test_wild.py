"""Wild-P-Diff: its sizes, where step and condition enter, and that conditions are followed, by every backend that takes them."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn

from dotted import nest
from paramgen.backends.pdiff import PDiff
from paramgen.backends.rpg import RPG
from paramgen.backends.wild import WildPDiff
from paramgen.cli.commands.sample import main as sample
from paramgen.core.codec import TokenCodec
from paramgen.core.params import ParamSpec
from paramgen.core.samples import read_samples
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.loading import load_generator
from paramgen.generators.sampling import SampleRequest
from paramgen.nn.autoencoder import ConvAutoencoder
from paramgen.nn.embeddings import time_features

QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
    "enable_checkpointing": False,
    "accelerator": "cpu",
    "max_epochs": -1,
}
VAE = {
    "autoencoder.channels": [8, 8],
    "autoencoder.latent_dim": 8,
    "denoiser.channels": [16, 16],
    "autoencoder.steps": 150,
    "autoencoder.lr": 1e-2,
}
MLP = {
    "denoiser.kind": "mlp",
    "denoiser.width": 64,
    "denoiser.depth": 2,
    "diffusion.prediction_type": "sample",
    "optimizer.lr": 3e-3,
}
CURVE = {
    "diffusion.beta_schedule": "squaredcos_cap_v2",
    "diffusion.scheduler": "DDIM",
    "diffusion.num_inference_steps": 10,
}
TOKENS = {
    "recurrence.d_model": [32],
    "recurrence.kind": "none",
    "head.kind": "mlp",
    "head.hidden": 64,
    "state.kind": "none",
    "diffusion.prediction_type": "sample",
    "optimizer.lr": 3e-3,
}
FOLLOWERS = {
    "wild": (WildPDiff, {**VAE, **CURVE, "denoiser.time": "layers", "diffusion.prediction_type": "sample"}, 300),
    "pdiff_film": (PDiff, {**MLP, **CURVE, "autoencoder.kind": "none", "denoiser.condition": "film"}, 120),
    "pdiff_concat": (
        PDiff,
        {**MLP, **CURVE, "autoencoder.kind": "pca", "autoencoder.latent_dim": 6, "denoiser.condition": "concat"},
        120,
    ),
    "pdiff_latent": (
        PDiff,
        {**MLP, **CURVE, "autoencoder.kind": "pca", "autoencoder.latent_dim": 6, "denoiser.condition": "latent"},
        120,
    ),
    "rpg": (RPG, {**TOKENS, **CURVE}, 120),
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """24 networks of 3 tasks: each task has weights of its own, and a condition that says nothing of them."""
    model = nn.Linear(7, 5)
    path = tmp_path_factory.mktemp("tasks") / "zoo"
    writer = ZooWriter(path, ParamSpec.of(model), {}, {"class_path": "none", "init_args": {}}, {"made": "by a test"})
    generator = torch.Generator().manual_seed(0)
    centres = [{k: torch.randn(v.shape, generator=generator) for k, v in model.state_dict().items()} for _ in range(3)]
    conditions = [[0.0, 9.0, 1.0], [1.0, -5.0, 1.0], [1.0, 20.0, 1.0]]
    for i in range(24):
        task = i % 3
        state = {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in centres[task].items()}
        writer.add(state, run=i, step=0, seed=i, task=f"task{task}", condition=conditions[task])
    return writer.close(), torch.tensor(conditions), torch.stack([writer.spec.flatten(c) for c in centres])


def fit(kind, zoo, arguments, max_steps):
    seed_everything(0)
    data = ParameterDataModule(str(zoo.path), TokenCodec(8) if kind is RPG else None, batch_size=24)
    model = kind(data.seq_len, data.token_dim, data.num_networks, cond_dim=data.cond_dim, **nest(arguments))
    trainer = Trainer(max_steps=max_steps, num_sanity_val_steps=0, **QUIET)
    trainer.fit(model, data)
    return model, trainer


@pytest.fixture(scope="module", params=FOLLOWERS)
def follower(request, zoo, tmp_path_factory):
    kind, arguments, steps = FOLLOWERS[request.param]
    _, trainer = fit(kind, zoo[0], arguments, steps)
    path = tmp_path_factory.mktemp("fit") / "x.ckpt"
    trainer.save_checkpoint(path)
    return load_generator(path)


def tasks_of(networks, zoo, centres):
    return torch.cdist(zoo.spec.flatten_many(networks), centres).argmin(1)


def test_networks_are_those_of_the_task_that_was_asked_for(follower, zoo):
    zoo, conditions, centres = zoo
    networks = follower.sample(30, conditions.repeat(10, 1), generator=torch.Generator().manual_seed(0))
    assert torch.equal(tasks_of(networks, zoo, centres), torch.arange(3).repeat(10))


def test_without_a_condition_networks_are_of_any_task(follower, zoo):
    zoo, _, centres = zoo
    torch.manual_seed(0)
    assert len(tasks_of(follower.sample(40), zoo, centres).unique()) > 1


def test_guidance_by_nothing_forgets_the_condition(follower, zoo):
    conditions = zoo[1][[0]].expand(4, -1)

    def drawn(condition, scale):
        noise = torch.Generator().manual_seed(1)
        return follower.draw(SampleRequest(4, condition, guidance_scale=scale, generator=noise))

    first, second, third = (drawn(*asked) for asked in ((conditions, 0.0), (None, None), (conditions, 1.5)))
    assert [d.guidance_scale for d in (first, second, third)] == [0.0, None, 1.5]
    first, second, third = (d.tokens for d in (first, second, third))
    assert torch.allclose(first, second, atol=1e-4)
    assert not torch.allclose(first, third, atol=1e-2)


def test_command_guides_where_there_is_a_condition(zoo, tmp_path):
    _, trainer = fit(PDiff, zoo[0], {**MLP, **CURVE, "autoencoder.kind": "none"}, 2)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    command = partial(sample, str(tmp_path / "x.ckpt"), n=2)
    for scale in (0.0, 1.0, 4.0):
        command(out=str(tmp_path / f"{scale}"), condition=[0.0, 9.0, 1.0], guidance_scale=scale)
    weights = [read_samples(tmp_path / f"{scale}", zoo[0]).weights for scale in (0.0, 1.0, 4.0)]
    assert not torch.allclose(weights[1], weights[2])
    with pytest.raises(ParamgenError, match="guidance_scale needs a condition"):
        command(out=str(tmp_path / "none"), guidance_scale=2.0)


def test_a_condition_of_another_width_is_refused(follower):
    with pytest.raises(ParamgenError, match="has 4 numbers, the generator takes 3"):
        follower.sample(2, torch.zeros(2, 4))


def test_whole_has_the_papers_parameters():
    with torch.device("meta"):
        model = WildPDiff(1, 360_690, 3000, cond_dim=768)  # adapters of EfficientNet-B0, features of CLIP's ViT-B
    count = sum(p.numel() for p in model.parameters())
    assert count / 2**20 == pytest.approx(282.42, rel=1e-3)


def test_layers_have_the_papers_widths():
    with torch.device("meta"):
        model = WildPDiff(1, 1000, 10)
    layers = [*model.denoiser.down, *reversed(model.denoiser.up)]
    assert [layer[0].out_channels for layer in layers] == [64, 128, 256, 512, 256, 128, 64, 64]
    assert model.denoiser.last.out_channels == 1
    assert sum(isinstance(m, nn.BatchNorm1d) for m in model.denoiser.modules()) == 8
    encoder = [m.out_channels for m in model.autoencoder.encoder.modules() if isinstance(m, nn.Conv1d)]
    decoder = [m.out_channels for m in model.autoencoder.decoder.modules() if isinstance(m, nn.ConvTranspose1d)]
    assert encoder == [64, 128, 256, 256, 32]
    assert decoder == [256, 256, 128, 64, 1]
    assert model.latent_shape == (1, 2048)


def test_step_and_condition_are_added_to_the_latent_and_enter_nowhere_else():
    torch.manual_seed(0)
    told = WildPDiff(1, 50, 10, cond_dim=3, **nest(VAE)).denoiser.eval()
    z, t = torch.randn(4, 1, 8), torch.tensor([0, 10, 500, 999])
    marked = told.condition.mark(torch.randn(4, 3), 4)
    moved = (
        z + time_features(t, 8)[:, None] - time_features(torch.zeros(4), 8)[:, None] + told.condition(marked)[:, None]
    )
    with torch.no_grad():
        assert torch.allclose(told(z, t, marked), told.denoiser(moved, torch.zeros(4)), atol=1e-5)


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("length", [1, 80, 81, 83])
def test_autoencoder_gives_back_the_length_at_any_stride(stride, length):
    model = ConvAutoencoder(length, (4, 4, 4), 5, 1, latent_dim=6, stride=stride)
    assert model.decode(model.encode(torch.randn(2, length)).mu).shape == (2, length)
    assert model.padded % stride**3 == 0


def test_entry_must_be_known(zoo):
    with pytest.raises(ParamgenError, match=r"denoiser\.condition is 'head', expected latent, film or concat"):
        PDiff(1, 40, 10, 3, autoencoder={"kind": "none"}, denoiser={"kind": "mlp", "condition": "head"})
