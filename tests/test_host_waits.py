"""No step of a fit makes the host wait for the device, and a sample only seldom: every backend on a pretended second device."""

from itertools import chain, product

import pytest
import torch
from lightning.pytorch import Callback

from conftest import write_zoo
from dotted import nest
from every_backend import build, cases
from paramgen.backends.pdiff import PDiff
from paramgen.core.params import ParamSpec
from paramgen.core.zoo_writer import ZooWriter
from paramgen.generators.behaviour import BehaviouralLoss
from paramgen.generators.callbacks import SampleQuality, SparingProgressBar
from paramgen.generators.divergence import Divergence
from paramgen.generators.optim import EMA
from paramgen.generators.sampling import SampleRequest
from paramgen.tasks.vision.relabel import RelabelFamily
from second_device import FAR, far_trainer, pretended

QUIET = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "limit_val_batches": 0}
CODES = ["0000011111", "0101010101"]
SMALL = {
    "recurrence.d_model": [32],
    "recurrence.d_state": 4,
    "head.hidden": 8,
    "head.channels": [1, 2, 1],
    "diffusion.scheduler": "DDIM",
    "diffusion.num_inference_steps": 2,
    "diffusion.prediction_type": "sample",
    "condition.dropout": 0.3,
    "state.embedding": "normal",
}
BEHAVES = [name for name in cases() if name not in ("gaussian", "rpg_conv")]  # the others predict no whole networks


@pytest.fixture(scope="module")
def plain_zoo(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("plain") / "zoo", networks=12)


@pytest.fixture(scope="module")
def told_zoo(tmp_path_factory):
    """Networks of two tasks, each with its condition."""
    family = RelabelFamily(network_args={"hidden": [6]}, seen=CODES, unseen=["0011001100"])
    network = family.build()
    spec = ParamSpec.of(network)
    writer = ZooWriter(tmp_path_factory.mktemp("told") / "zoo", spec, {}, family.config(), {"made": "by a test"})
    for i in range(8):
        state = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in network.state_dict().items()}
        code = CODES[i % 2]
        writer.add(state, run=i, step=0, seed=i, task=code, condition=[float(bit) for bit in code])
    return writer.close()


class Watched(Callback):
    """Keeps the waits of each step, from the beginning of one to that of the next."""

    def __init__(self, waits):
        self.waits, self.found, self.devices = waits, {}, set()

    def on_train_batch_start(self, trainer, module, *_):
        self.devices |= {parameter.device for parameter in module.parameters()}
        self.found[trainer.global_step - 1] = [*self.waits]
        self.waits.clear()


def waits_of_steps(case, zoo, *callbacks):
    """What makes the host wait in the steps of a fit, apart from the first, which copies what stays on the device, of each phase."""
    torch.manual_seed(0)  # the first step must run a network on its images
    model, data = build(case, str(zoo.path), batch_size=4, steps_per_epoch=100)
    second = getattr(model, "first_steps", 0)  # step at which another phase begins
    with pretended() as waits:
        watched = Watched(waits)
        usual = [watched, SampleQuality(0), SparingProgressBar(), Divergence(), EMA(0.9)]
        trainer = far_trainer(max_steps=second + 3, max_epochs=-1, callbacks=[*usual, *callbacks], **QUIET)
        trainer.fit(model, data)
    assert watched.devices == {FAR}
    counted = [waits for step, waits in watched.found.items() if step not in (-1, 0, second)]
    assert counted
    return [wait for wait in chain(*counted) if "divergence.py" not in wait]  # which reads each of the first ten losses


@pytest.mark.parametrize("name", BEHAVES)
def test_a_step_with_conditions_and_the_behavioural_loss_never_waits_for_the_device(name, told_zoo):
    least = 0.3 if name.startswith("rpg") else 0.0  # some networks of a batch are then left out
    behaviour = BehaviouralLoss(images_per_step=2, networks_per_step=3, signal_weighting=not least, least_signal=least)
    assert waits_of_steps(cases()[name], told_zoo, behaviour) == []


@pytest.mark.parametrize("name", sorted(cases().keys() - BEHAVES))
def test_nor_does_one_of_backends_without_that_loss(name, plain_zoo):
    assert waits_of_steps(cases()[name], plain_zoo) == []


def on_far(case, zoo, waits):
    """A model on the pretended device and a batch there, after a first loss, which copies what stays there."""
    model, data = build(case, str(zoo.path), batch_size=4)
    data.setup()
    model.codec, model.zoo_info = data.codec, {"networks": range(8), "runs": range(8)}
    batch = next(iter(data.train_dataloader())).to(FAR)
    model.to(FAR)
    if isinstance(model, PDiff):
        model.learn_latents([known.x for known in data.predict_dataloader()])
    with torch.no_grad():
        model.loss(batch)
    waits.clear()
    return model, batch


@pytest.mark.parametrize("name", cases())
def test_nor_does_a_loss_alone_and_samples_wait_as_seldom_with_more_solver_steps(name, plain_zoo):
    found = []
    with pretended() as waits:
        model, batch = on_far(cases()[name], plain_zoo, waits)
        model.loss(batch)["loss"].backward()
        assert waits == []
        for steps in (2, 4) if model.has_solver else (None, None):
            waits.clear()
            model.draw(SampleRequest(2, num_inference_steps=steps))
            found.append(len(waits))
    assert found[1] <= found[0] <= 6


@pytest.mark.parametrize("told", [True, False], ids=["told", "plain"])
@pytest.mark.parametrize("recurrence", ["mamba", "mamba1", "lstm", "transformer", "none"])
def test_rpg_never_waits_with_any_head_recurrence_and_state(recurrence, told, plain_zoo, told_zoo):
    zoo, codec = (told_zoo if told else plain_zoo), {"token_dim": 128 if told else 8}
    for head, state in product(("conv", "mlp"), ("checkpoint", "run", "none")):
        chosen = {"recurrence.kind": recurrence, "head.kind": head, "state.kind": state, "states_per_step": 3}
        case = {"model": {"class_path": "RPG", "init_args": nest(SMALL | chosen)}}
        case["data"] = {"codec": {"class_path": "TokenCodec", "init_args": codec}}
        with pretended() as waits:
            model, batch = on_far(case, zoo, waits)
            model.loss(batch)["loss"].backward()
            assert waits == []
            if head == "mlp":
                condition = torch.rand(2, 10) if told else None
                model.draw(SampleRequest(2, condition, guidance_scale=2.0 if told else None))
                assert len(waits) <= 6  # to bring a condition there and the networks back


def test_the_pretended_device_refuses_mixed_devices_and_sees_every_wait():
    with pretended() as waits:
        far, near = torch.arange(4.0).to(FAR), torch.ones(4)
        with pytest.raises(RuntimeError, match=r"of the device and .* of the CPU"):
            far + near
        assert (far + 1).cpu().tolist() == [1, 2, 3, 4]
        for wait in (
            lambda: far.sum().item(),
            lambda: bool(far.sum() > 1),
            lambda: far.tolist(),
            lambda: far.nonzero(),
            lambda: torch.where(far > 1),
            lambda: far[far > 1],
            lambda: far[torch.tensor([0])],
            lambda: far.unique(),
            lambda: near.to(FAR),
            lambda: torch.tensor([1.0], device=FAR),
            lambda: torch.equal(far, far + 0),
        ):
            waits.clear()
            wait()
            assert len(waits) == 1
        waits.clear()
        assert (near.to(FAR, non_blocking=True) * far).requires_grad is False
        torch.randn(3, device=FAR).add_(1).softmax(0)
        assert waits == []
