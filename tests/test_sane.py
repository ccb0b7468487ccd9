"""SANE: an autoencoder of tokens, the density of the best networks' latents, and batch norm measured anew."""

import json

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from conftest import TinyNet, vary, write_zoo
from every_backend import build
from paramgen.backends.sane import SANE, DensitySettings
from paramgen.cli.commands.sample import main as sample
from paramgen.core.density import kernel_samples
from paramgen.core.params import ParamSpec
from paramgen.core.samples import read_samples
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError
from paramgen.generators.data import ParameterDataModule
from paramgen.nn.token_autoencoder import TokenAutoencoder, TokenAutoencoderSettings, contrastive_loss
from paramgen.tasks import ClassificationTask

SMALL = {"latent_dim": 4, "width": 16, "depth": 1, "heads": 2}
QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
    "accelerator": "cpu",
    "max_epochs": -1,
    "limit_val_batches": 0,
    "enable_checkpointing": False,
}


def case(**autoencoder):
    return {
        "model": {"class_path": "SANE", "init_args": {"autoencoder": {**SMALL, **autoencoder}}},
        "data": {"codec": {"class_path": "TokenCodec", "init_args": {"token_dim": 8}}},
    }


def begun(zoo, **data):
    model, module = build(case(), str(zoo.path), batch_size=4, steps_per_epoch=4, **data)
    Trainer(max_steps=1, **QUIET).fit(model, module)
    return model, module


def scored_zoo(path, val):
    """Networks with these scores on val; on train the first ones are best."""
    writer = ZooWriter(path, ParamSpec.of(TinyNet()), {"steps": torch.tensor(7)}, None, {"made": "by a test"})
    for i, score in enumerate(val):
        scores = {"train": {"score": 1 - i / 10, "loss": 1.0}, "val": {"score": score, "loss": 1.0}}
        writer.add(vary(TinyNet(), i), run=0, step=i, seed=i, split="train", scores=scores)
    return writer.close()


def autoencoder(L=7, D=6, **settings):
    torch.manual_seed(0)
    return TokenAutoencoder(L, D, TokenAutoencoderSettings(**{**SMALL, **settings})).eval()


@pytest.mark.parametrize(
    ("independent", "groups"), [("number", (5, 12, 1)), ("token", (5, 3, 4)), ("network", (5, 1, 12))]
)
def test_density_draws_numbers_tokens_or_networks_independently(independent, groups):
    points = DensitySettings(independent=independent).groups(torch.randn(5, 3, 4))
    assert points.shape == groups
    drawn = kernel_samples(points, 200, torch.Generator().manual_seed(0), temperature=0.0)
    assert (drawn[:, None] == points).all(-1).any(1).all()  # every group is one of the known ones
    whole = (drawn[:, None] == points).flatten(2).all(-1).any(1).float().mean()
    assert whole == 1 if independent == "network" else whole < 0.2


def test_density_is_as_wide_as_points_and_kernel_together():
    points = torch.randn(4000, 1, 2) * torch.tensor([1.0, 3.0])
    drawn = kernel_samples(points, 4000, torch.Generator().manual_seed(0), bandwidth=0.5)
    torch.testing.assert_close(drawn.std(0)[0], 1.25**0.5 * torch.tensor([1.0, 3.0]), rtol=0.05, atol=0)


def test_examples_are_the_best_networks_on_val_not_on_train(tmp_path):
    zoo = scored_zoo(tmp_path / "zoo", val=[0.1, 0.9, 0.2, 0.3, 0.8, 0.4, 0.5, 0.7, 0.6, 0.0])
    model, data = begun(zoo)
    assert len(model.examples) == 3  # 30 %
    torch.testing.assert_close(model.examples, data.codec.encode_many([zoo[i] for i in (1, 4, 7)]))


def test_a_lower_score_is_better_where_the_zoo_says_so(tmp_path):
    zoo = scored_zoo(tmp_path / "zoo", val=[0.1, 0.9, 0.2])
    zoo.meta["score"] = {"name": "perplexity", "unit": "plain", "higher_is_better": False, "margin": 0.1, "axis": "log"}
    assert zoo.goodness([0, 1, 2], "val").argmax() == 0
    assert write_zoo(tmp_path / "unscored").goodness([0], "val") is None


def test_a_zoo_without_scores_gives_evenly_spaced_examples(tmp_path, caplog):
    zoo = write_zoo(tmp_path / "zoo", networks=30)
    model, data = begun(zoo)
    train = zoo.indices("train")
    torch.testing.assert_close(model.examples, data.codec.encode_many([zoo[train[i]] for i in (0, 3, 6)]))
    assert "records no scores" in caplog.text


def test_windows_with_wide_halos_read_what_all_tokens_read():
    x = torch.randn(2, 7, 6)
    whole, pieces = autoencoder(), autoencoder(window=3, halo=7)
    torch.testing.assert_close(pieces.decode(pieces.encode(x)), whole.decode(whole.encode(x)))
    changed = x.clone()
    changed[:, 6] += 1
    narrow = autoencoder(window=3, halo=1)
    same = (narrow.encode(x) == narrow.encode(changed)).all(-1).all(0)
    assert same.tolist() == [True, True, True, False, False, False, False]  # tokens 3 to 5 see one more, 6


def test_padding_does_not_count_in_the_loss():
    x, mask = torch.randn(2, 7, 6), torch.ones(7, 6, dtype=torch.bool)
    mask[:, 4:] = False
    model = autoencoder()
    model.out.bias.data[4:] += 100
    reconstruction, _ = model.losses(x * mask, mask)
    assert reconstruction < 10


def test_contrast_is_least_where_views_of_one_network_agree():
    z = torch.randn(6, 8)
    agreeing = contrastive_loss(torch.cat([z, z + 0.01 * torch.randn(6, 8)]), 0.1)
    assert agreeing < 0.1 < contrastive_loss(torch.cat([z, z.roll(1, 0)]), 0.1)


def test_it_learns_to_reconstruct_networks_and_draws_between_them(tmp_path):
    zoo = write_zoo(tmp_path / "zoo", networks=24)
    seed_everything(0)
    model, data = build(case(latent_dim=8, width=32, contrast=0.0), str(zoo.path), batch_size=8)
    model.optimizer_settings = type(model.optimizer_settings)(lr=1e-2)
    Trainer(max_steps=100, **QUIET).fit(model.train(), data)
    model.eval()
    x = data.codec.encode_many([zoo[i] for i in zoo.indices("train")])
    with torch.no_grad():
        error, contrasted = model.autoencoder.losses(x, model.token_mask())
    assert error < 0.2 * x.square().sum() / (model.token_mask().sum() * len(x))
    assert contrasted == 0
    tight, wide = (model.sample(20, temperature=t, generator=torch.Generator().manual_seed(0)) for t in (0.0, 1.0))
    assert not torch.equal(tight[0]["linear.weight"], wide[0]["linear.weight"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 10, "heads": 4}, "multiple"),
        ({"contrast": 1.0}, "contrast"),
        ({"input_noise": 0.0}, "views are equal"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(ParamgenError, match=said):
        TokenAutoencoderSettings(**settings)
    with pytest.raises(ParamgenError, match=r"density\.best"):
        DensitySettings(best=0.0)


def cnn_zoo(path):
    """Untrained batch-norm networks of the digits."""
    task = ClassificationTask(network="cnn_digits")
    spec = ParamSpec.of(task.build())
    writer = ZooWriter(path, spec, {}, task.config(), {"made": "by a test"})
    for i in range(6):
        writer.add(vary(task.build(), i), run=i, step=0, seed=i, split="train")
    return writer.close()


def test_recalibrated_samples_are_measured_on_train_items_and_marked(tmp_path):
    zoo = cnn_zoo(tmp_path / "zoo")
    data = ParameterDataModule(str(zoo.path), batch_size=4)
    model = SANE(data.seq_len, data.token_dim, data.num_networks, SMALL)
    trainer = Trainer(max_steps=1, **QUIET)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    for name, asked in (("plain", False), ("measured", True)):
        sample(str(tmp_path / "x.ckpt"), n=2, out=str(tmp_path / name), recalibrate=asked)
        info = json.loads((tmp_path / name / "samples.json").read_text())
        assert info["uses_task_data"] is asked
    plain, measured = (read_samples(tmp_path / name, zoo).weights for name in ("plain", "measured"))
    statistics = torch.cat([torch.full((t.numel,), t.kind != "weight") for t in zoo.spec.tensors])
    assert torch.equal(plain[:, ~statistics], measured[:, ~statistics])
    assert not torch.isclose(plain[:, statistics], measured[:, statistics]).any(1).all()


def test_networks_without_batch_norm_are_not_recalibrated(tmp_path):
    zoo = write_zoo(tmp_path / "zoo", networks=9, task=ClassificationTask(network="mlp").config())
    model, data = begun(zoo)
    trainer = Trainer(max_steps=1, **QUIET)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(ParamgenError, match="have no batch-norm statistics"):
        sample(str(tmp_path / "x.ckpt"), n=1, out=str(tmp_path / "samples"), recalibrate=True)
