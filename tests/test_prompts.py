"""Prompts and start weights: what a generator is told of its training networks, and what it is asked for."""

import json
import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from safetensors.torch import save_file

from conftest import TinyNet, vary
from every_backend import build
from gaussian_backend import GaussianBackend
from paramgen.cli.commands.sample import main as sample
from paramgen.core.params import ParamSpec
from paramgen.core.samples import read_samples
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.loading import load_generator
from paramgen.generators.prompts import parse_prompt
from paramgen.generators.sampling import SampleRequest

RUNS, STEPS = 4, 5
SIZES = {
    "denoiser": {"width": 32, "depth": 1, "heads": 2},
    "diffusion": {"num_inference_steps": 5},
    "optimizer": {"lr": 5e-3, "warmup_steps": 0},
}
CASE = {
    "model": {"class_path": "DiT", "init_args": SIZES},
    "data": {"codec": {"class_path": "TokenCodec", "init_args": {"token_dim": 8}}},
}
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}


def loss_at(step):
    return 2.0 * 0.5**step  # falls from 1 to 1/16


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Runs of five checkpoints: each run has its own place, and every weight grows with the steps, from 1 to 5."""
    folder = tmp_path_factory.mktemp("zoo") / "zoo"
    net = TinyNet()
    spec = ParamSpec.of(net, [k for k, t in net.state_dict().items() if t.is_floating_point()])
    state = vary(net, 0)
    rest = {k: v for k, v in state.items() if k not in {*spec.names, *spec.aliases}}
    writer = ZooWriter(folder, spec, rest, {"class_path": "none", "init_args": {}}, {"mode": "seeds"})
    for run in range(RUNS):
        for step in range(1, STEPS + 1):
            numbers = {name: torch.full_like(t, float(step)) for name, t in state.items() if name in spec.names}
            numbers["linear.weight"] = torch.full_like(state["linear.weight"], float(10 * run))
            generated = {**state, **numbers, **{a: numbers[c] for a, c in spec.aliases.items()}}
            scores = {"score": step / 10, "loss": loss_at(step)}
            split = "val" if run == RUNS - 1 else "train"
            writer.add(generated, run=run, step=step, seed=run, split=split, scores={"train": scores, "val": scores})
    writer.close()
    return Zoo(folder)


def fit(zoo, path, steps, **data_arguments):
    seed_everything(0)
    model, data = build(CASE, str(zoo.path), batch_size=16, steps_per_epoch=50, **data_arguments)
    trainer = Trainer(accelerator="cpu", max_steps=steps, max_epochs=-1, limit_val_batches=0, **QUIET)
    trainer.fit(model, data)
    trainer.save_checkpoint(path)
    return load_generator(path)


@pytest.fixture(scope="module")
def prompted(zoo, tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "prompted.ckpt"
    return path, fit(zoo, path, 250, prompt=["val.loss"], start="earlier")


def step_of(networks):
    return torch.tensor([state["out.bias"].mean().item() for state in networks])


def test_networks_have_the_loss_that_was_asked_for(prompted):
    _, model = prompted
    noise = torch.Generator().manual_seed(0)
    for step in (1, 3, 5):
        networks = model.sample(20, prompt={"val.loss": loss_at(step)}, generator=noise)
        assert step_of(networks).mean().item() == pytest.approx(step, abs=0.5)


def test_networks_are_of_the_run_that_they_start_from(prompted, zoo):
    _, model = prompted
    starts = model.codec.encode_many([zoo[0], zoo[2 * STEPS]])
    networks = model.sample(
        2, prompt={"val.loss": loss_at(5)}, start=starts, generator=torch.Generator().manual_seed(0)
    )
    runs = [state["linear.weight"].mean().item() / 10 for state in networks]
    assert runs == pytest.approx([0, 2], abs=0.4)
    assert step_of(networks).min() > 4  # and not where they start


def test_without_a_prompt_networks_vary_more_than_with_one(prompted):
    _, model = prompted
    free, asked = (
        step_of(model.sample(60, prompt=prompt, generator=torch.Generator().manual_seed(0))).std()
        for prompt in (None, {"val.loss": loss_at(3)})
    )
    assert free > 1.5 * asked


def test_statistics_and_range_of_prompts_are_in_the_checkpoint(prompted):
    path, model = prompted
    saved = torch.load(path, weights_only=True)
    assert saved["paramgen"]["zoo"]["prompts"] == {"val.loss": [loss_at(5), loss_at(1)]}
    assert model.prompts == {"val.loss": (loss_at(5), loss_at(1))}
    assert model.denoiser.condition.mean.item() == pytest.approx(math.log(loss_at(3)))


def test_command_records_prompt_and_start(prompted, zoo, tmp_path, caplog):
    path, _ = prompted
    save_file({name: t.clone() for name, t in zoo.full(STEPS).items()}, tmp_path / "start.safetensors")
    with caplog.at_level("INFO"):
        sample(
            str(path), n=4, out=str(tmp_path / "a"), prompt="val.loss=0.001", start=f"0,{tmp_path}/start.safetensors"
        )
    written = json.loads((tmp_path / "a" / "samples.json").read_text())
    assert written["prompt"] == {"val.loss": 0.001}
    assert written["start"].startswith("0,")
    assert written["guidance_scale"] == 1
    assert read_samples(tmp_path / "a", zoo).info.prompt == {"val.loss": 0.001}
    assert "outside the zoo's range, 0.0625 to 1" in caplog.text


def test_guidance_follows_the_prompt_further(prompted):
    _, model = prompted

    def mean(scale):
        noise = torch.Generator().manual_seed(0)
        return step_of(
            model.sample(30, prompt={"val.loss": loss_at(4.5)}, guidance_scale=scale, generator=noise)
        ).mean()

    assert mean(0.0) < mean(1.0) < mean(2.0)


def test_mistakes_are_one_line_that_names_what_there_is(prompted, zoo, tmp_path):
    path, _ = prompted
    command = partial(sample, str(path), n=2, out=str(tmp_path / "none"))
    for given, said in [
        (
            {"prompt": "val.los=0.1"},
            r"Unknown prompt 'val.los' of this DiT. Did you mean 'val.loss'\? Available: val.loss",
        ),
        ({"prompt": "val.loss"}, "expected NAME=NUMBER, for example val.loss=0.1"),
        ({"prompt": "val.loss=nan"}, "expected NAME=NUMBER"),
        ({"prompt": "val.loss=-1"}, "expected a loss above 0"),
        ({"prompt": "val.loss=1,val.loss=2"}, "given twice"),
        ({"start": "nowhere.safetensors"}, "no such file; expected a safetensors file or the index"),
        ({"start": "99"}, "has networks 0 to 19"),
    ]:
        with pytest.raises(ParamgenError, match=said):
            command(**given)
    with pytest.raises(
        ParamgenError, match=r"Unknown prompt 'val.acc' of zoo 'zoo'. Did you mean 'val.accuracy'\? Avail"
    ):
        ParameterDataModule(str(zoo.path), prompt=["val.acc"])


def test_a_generator_without_prompts_refuses_them(zoo, tmp_path):
    model = fit(zoo, tmp_path / "x.ckpt", 1)
    with pytest.raises(ParamgenError, match=r"prompt val.loss=0.1 was given, but this DiT takes no prompts"):
        model.sample(1, prompt={"val.loss": 0.1})
    with pytest.raises(ParamgenError, match="start weights were given, but this DiT takes none"):
        model.sample(1, start=model.codec.encode_many([zoo[0]]))
    with pytest.raises(ParamgenError, match="start '0' was given, but this DiT takes no start weights"):
        sample(str(tmp_path / "x.ckpt"), n=1, out=str(tmp_path / "none"), start="0")


def test_a_backend_without_start_weights_refuses_data_that_give_them(zoo):
    data = ParameterDataModule(str(zoo.path), start="earlier")
    trainer = Trainer(accelerator="cpu", max_steps=1, max_epochs=-1, **QUIET)
    with pytest.raises(ParamgenError, match=r"GaussianBackend takes none; remove data.start"):
        trainer.fit(GaussianBackend(data.seq_len, data.token_dim), data)


def test_prompts_are_conditions_of_every_backend_that_takes_conditions(zoo):
    data = ParameterDataModule(str(zoo.path), prompt=["val.loss", "train.accuracy"])
    assert data.cond_dim == 2
    torch.testing.assert_close(data.conditions[4], torch.tensor([math.log(loss_at(5)), 0.5]))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch.condition, data.conditions[batch.index])


def test_starts_are_earlier_checkpoints_of_the_same_run(zoo):
    data = ParameterDataModule(str(zoo.path), start="earlier", batch_size=15)
    data.setup("fit")
    seen = set()
    for batch in data.train_dataloader():
        networks, starts = (data.codec.decode_many(x) for x in (batch.x, batch.start))
        for network, start in zip(networks, starts, strict=True):
            assert torch.equal(network["linear.weight"], start["linear.weight"])  # the run
            seen.add((round(network["out.bias"][0].item()), round(start["out.bias"][0].item())))
    assert seen == {(1, 1)} | {(later, earlier) for later in range(2, 6) for earlier in range(1, later)}


def test_two_processes_see_the_starts_of_one(zoo):
    def stream(batch_size, rank, world):
        data = ParameterDataModule(str(zoo.path), start="earlier", batch_size=batch_size, steps_per_epoch=3)
        data.setup("fit")
        found = data.train_dataloader()
        found.rank, found.world_size = rank, world
        return [batch.start for batch in found]

    whole, halves = stream(8, 0, 1), [stream(4, rank, 2) for rank in (0, 1)]
    assert all(torch.equal(x, torch.cat(both)) for x, *both in zip(whole, *halves, strict=True))


def test_mixtures_have_no_prompt(zoo):
    case = {**CASE, "model": {"class_path": "DiT", "init_args": {**SIZES, "mixing": {"concentration": 0.3}}}}
    with pytest.raises(ParamgenError, match="a mixture of networks has no recorded score"):
        build(case, str(zoo.path), prompt=["val.loss"])


def test_prompts_are_read_as_typed():
    assert parse_prompt("val.loss=1e-2, train.accuracy=0.9") == {"val.loss": 0.01, "train.accuracy": 0.9}


def test_a_request_holds_its_prompt_until_it_is_drawn(prompted):
    _, model = prompted
    drawn = model.draw(SampleRequest(2, prompt={"val.loss": 0.5}))
    assert drawn.guidance_scale == 1.0
