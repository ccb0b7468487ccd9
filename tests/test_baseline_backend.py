"""Baselines as generators: fitted, saved and drawn from like any method, and the same networks as a report's own baselines."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer, seed_everything

from conftest import write_zoo
from measured import make_zoo
from paramgen import baselines
from paramgen.backends.baseline import Baseline
from paramgen.cli import main
from paramgen.codec import FlatCodec, TokenCodec
from paramgen.data import ParameterDataModule
from paramgen.errors import ParamgenError
from paramgen.generator import load_generator
from paramgen.paths import list_configs
from paramgen.samples import read_samples
from paramgen.sampling import SampleRequest
from paramgen.tasks import load_task
from paramgen.tasks.score import CLASSIFIES
from paramgen.tasks.scoring import score_networks
from paramgen.zoo import ZooWriter

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}
SAME = {  # kind, arguments: the report's name for it
    ("copy",): "copy",
    ("noise", "sigma", 0.5): "noise-0.5",
    ("interpolation",): "interpolation",
    ("soup", "m", 2): "soup-2",
    ("gaussian",): "gaussian",
    ("pca_gaussian",): "pca-gaussian",
}


def fit(zoo, path, codec=None, **arguments):
    seed_everything(0)
    data = ParameterDataModule(str(zoo.path), codec, steps_per_epoch=1)
    model = Baseline(data.seq_len, data.token_dim, data.num_networks, **arguments)
    trainer = Trainer(accelerator="cpu", max_steps=1, max_epochs=-1, num_sanity_val_steps=0, **QUIET)
    trainer.fit(model, data)
    trainer.save_checkpoint(path)
    return load_generator(path)


def pool_of(zoo):
    indices = zoo.indices("train")
    sizes = tuple(t.numel for t in zoo.spec.tensors)
    return baselines.Pool(zoo.matrix(indices), torch.zeros(len(indices)), sizes)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("zoo") / "zoo", networks=24)


@pytest.mark.parametrize("kind", SAME, ids=lambda kind: kind[0])
@pytest.mark.parametrize("codec", [FlatCodec, partial(TokenCodec, 8, normalisation="centre")], ids=["flat", "tokens"])
def test_a_checkpoint_draws_the_networks_of_the_report_s_baseline(kind, codec, zoo, tmp_path):
    model = fit(zoo, tmp_path / "x.ckpt", codec(), kind=kind[0], **dict([kind[1:]] if kind[1:] else []))
    drawn = zoo.spec.flatten_many(model.sample(6, generator=torch.Generator().manual_seed(4)))
    expected = baselines.generate(SAME[kind], pool_of(zoo), zoo.spec, n=6, seed=4)
    torch.testing.assert_close(drawn, expected, rtol=1e-3, atol=1e-4)


def test_half_the_temperature_is_half_the_gaussian_s_spread(zoo, tmp_path):
    model = fit(zoo, tmp_path / "x.ckpt", kind="gaussian")
    whole, half = (
        model.draw(SampleRequest(400, temperature=t, generator=torch.Generator().manual_seed(0))).tokens
        for t in (1, 0.5)
    )
    varies = whole.std(0) > 1e-3
    torch.testing.assert_close((half.std(0) / whole.std(0))[varies], torch.full_like(whole[0][varies], 0.5))


def test_kde_says_when_it_cannot_know_the_best(zoo, tmp_path):
    with pytest.raises(ParamgenError, match="records no train accuracies"):
        fit(zoo, tmp_path / "x.ckpt", kind="kde")


def test_unknown_kinds_and_sizes_are_refused_in_words():
    with pytest.raises(ParamgenError, match="no baseline 'gausian'; nearest: gaussian"):
        Baseline(1, 4, 3, kind="gausian")
    with pytest.raises(ParamgenError, match=r"model\.m is 0"):
        Baseline(1, 4, 3, kind="soup", m=0)


def test_several_devices_are_refused_in_one_line(zoo, tmp_path):
    config = {
        "model": {"class_path": "Baseline"},
        "data": {"zoo": str(zoo.path)},
        "trainer": {"max_steps": 1, "accelerator": "cpu", "devices": 2, "strategy": "ddp", "logger": False},
    }
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    command = [Path(sys.executable).with_name("paramgen"), "fit", "--config", "two.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "paramgen: a baseline has nothing to train on 2 devices" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def digits_zoo(tmp_path_factory):
    """A zoo of real networks with their train accuracies."""
    plain = make_zoo(tmp_path_factory.mktemp("plain") / "zoo", runs=6, heldout=1, hidden=[8])
    task = load_task(plain.task_config)
    found = score_networks(CLASSIFIES, task.build(), [plain.full(i) for i in range(len(plain))], task.data("train"))
    writer = ZooWriter(tmp_path_factory.mktemp("zoo") / "zoo", plain.spec, plain.base(), plain.task_config, {})
    for i, (entry, accuracy) in enumerate(zip(plain.entries, found.value.tolist(), strict=True)):
        kept = {k: v for k, v in vars(entry).items() if k not in ("file", "sha256", "scores")}
        writer.add(plain[i], **kept, scores={"train": {"score": accuracy}})
    return writer.close()


@pytest.mark.parametrize("config", [name for name in list_configs() if name.startswith("baseline_")])
def test_a_shipped_config_fits_and_its_checkpoint_samples(config, digits_zoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]
    where = ["--data.zoo", str(digits_zoo.path), "--checkpoint.dirpath", "fit"]
    assert main(["fit", "--config", config, *where, *quiet]) == 0
    assert main(["sample", "--ckpt_path", "fit/last.ckpt", "--n", "5", "--out", "drawn"]) == 0
    weights = read_samples("drawn", digits_zoo).weights
    assert weights.shape == (5, digits_zoo.spec.numel)
    assert weights.isfinite().all()


def test_kde_keeps_the_best_on_train(digits_zoo, tmp_path):
    model = fit(digits_zoo, tmp_path / "x.ckpt", kind="kde")
    entries = [digits_zoo.entries[i] for i in digits_zoo.indices("train")]
    assert model.accuracy.tolist() == pytest.approx([e.scores["train"]["score"] for e in entries])
    pool = pool_of(digits_zoo)._replace(goodness=model.accuracy)
    expected = baselines.generate("kde", pool, digits_zoo.spec, n=4, seed=1)
    drawn = digits_zoo.spec.flatten_many(model.sample(4, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(drawn, expected, rtol=1e-3, atol=1e-4)
