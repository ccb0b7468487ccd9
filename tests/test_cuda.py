"""Every backend on a CUDA device; skipped where there is none."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from conftest import write_zoo
from every_backend import build, cases
from paramgen.backends.pdiff import PDiff
from paramgen.generators.loading import load_generator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("zoo") / "zoo", networks=24)


@pytest.fixture(scope="module", params=cases())
def fitted(request, zoo, tmp_path_factory):
    seed_everything(0)
    model, data = build(cases()[request.param], str(zoo.path), batch_size=4, steps_per_epoch=4)
    trainer = Trainer(accelerator="gpu", devices=1, max_steps=6, max_epochs=-1, num_sanity_val_steps=0, **QUIET)
    trainer.fit(model, data)
    path = tmp_path_factory.mktemp("fit") / "x.ckpt"
    trainer.save_checkpoint(path)
    return path, trainer


def test_every_backend_fits_on_cuda(fitted):
    _, trainer = fitted
    assert trainer.global_step == 6
    assert all(torch.isfinite(value) for value in trainer.callback_metrics.values())


def test_a_generator_on_cuda_draws_finite_networks(fitted):
    path, _ = fitted
    networks = load_generator(path, "cuda").sample(3, generator=torch.Generator("cuda").manual_seed(0))
    assert all(torch.isfinite(tensor).all() for network in networks for tensor in network.values())


def test_cuda_draws_the_networks_that_the_cpu_draws_from_the_same_noise(fitted):
    path, _ = fitted
    drawn = [load_generator(path, d).sample(3, generator=torch.Generator().manual_seed(0)) for d in ("cpu", "cuda")]
    for on_cpu, on_cuda in zip(*drawn, strict=True):
        for name, tensor in on_cpu.items():
            torch.testing.assert_close(on_cuda[name], tensor, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", cases())
def test_a_training_step_never_waits_for_the_device(name, zoo):
    model, data = build(cases()[name], str(zoo.path), batch_size=4, steps_per_epoch=4)
    data.setup()
    model.codec = data.codec
    model.cuda()
    if isinstance(model, PDiff):
        model.learn_latents([b.x for b in data.predict_dataloader()])
    batch = next(iter(data.train_dataloader())).to("cuda")
    model.loss(batch)  # the first copies what stays on the device
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.loss(batch)["loss"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
