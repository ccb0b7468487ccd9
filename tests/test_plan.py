"""``paramgen plan`` counts on tensors without values what a fit then costs."""

import io
import json
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.flop_counter import FlopCounterMode

from paramgen.backends.rpg import RPG
from paramgen.cli.commands import plan as command
from paramgen.cli.main import main
from paramgen.cli.plan_table import show_plan
from paramgen.cli.planned_zoo import planned_zoo
from paramgen.generators.batches import ParamBatch
from paramgen.generators.sharding import divide, local
from paramgen.planning.advice import advise
from paramgen.planning.devices import find_device
from paramgen.planning.dry_run import dry_run
from paramgen.planning.meter import convolution_backward_flops
from paramgen.planning.plan import Machine, assess, plan

H100, CPU = Machine(find_device("h100")), Machine(find_device("cpu"))


def settings(*words):
    return command.settings_of(command.parsed([*words]))


@pytest.fixture(scope="module")
def small():
    """The settings of RPG on digits, whose zoo does not exist here, and their dry run."""
    chosen = settings("--config", "rpg_digits_mlp", "--model.head.kind", "conv", "--model.head.channels", "[1,8,1]")
    return chosen, dry_run(chosen, on_gpu=False)


@pytest.fixture(scope="module")
def real(small):
    """The same generator with values, and a batch of its size."""
    chosen, _ = small
    codec, zoo = chosen.codec, chosen.zoo
    torch.manual_seed(0)
    model = RPG(*codec.shape, num_networks=zoo.networks, num_runs=zoo.runs, **chosen.arguments)
    model.codec = codec
    index = torch.randperm(zoo.networks)[: chosen.batch_size]
    return model, ParamBatch(torch.randn(len(index), *codec.shape), None, index, torch.zeros_like(index), None)


def test_flops_are_those_of_torchs_counter_on_real_tensors(small, real):
    model, batch = real
    mapping = {torch.ops.aten.convolution_backward: convolution_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        model.loss(batch)["loss"].backward()
    model.zero_grad()
    (segment,) = small[1].segments
    assert segment.flops == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_states_have_the_bytes_of_the_real_ones(small, real):
    model, batch = real
    optimizer = torch.optim.AdamW(model.parameters())
    model.loss(batch)["loss"].backward()
    optimizer.step()
    gradients = sum(p.grad.nbytes for p in model.parameters())
    state = sum(v.nbytes for of in optimizer.state.values() for v in of.values())
    sizes = small[1].sizes
    assert sizes["weights"] == sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    assert (sizes["gradients"], sizes["optimizer"]) == (gradients, state)


def test_activations_hold_what_autograd_saves(small, real):
    model, batch = real
    kept = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), batch.x)}
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.loss(batch)["loss"]
    stored = sum(size for place, size in saved.items() if place not in kept)
    peak = small[1].meter.peak("fit, 32-true").parts["activations"]
    assert stored <= peak <= 1.5 * stored  # besides temporary tensors of the forward and backward pass


def test_a_depthwise_convolutions_gradients_cost_twice_its_forward_pass():
    x, conv = torch.randn(2, 12, 20, requires_grad=True), torch.nn.Conv1d(12, 12, 3, groups=12)
    mapping = {torch.ops.aten.convolution_backward: convolution_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        y = conv(x)
        forward = counter.get_total_flops()
        y.sum().backward()
    assert forward == 2 * 2 * 12 * 18 * 3
    assert counter.get_total_flops() == 3 * forward


@pytest.mark.parametrize("config", ["dit_digits_seeds"])
def test_a_config_is_planned_without_its_zoo(config):
    found = plan(settings("--config", config), H100)
    assert found.misfit is None
    assert 0 < found.hours < 1
    assert found.peak >= found.sizes["weights"] + found.sizes["optimizer"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    ["graph_digits_mlp", "rpg_digits_relabel", "wild_efficientnet_lora", "rpg_convnext_large", "pdiff_mnist_mlp3"],
)
def test_large_configs_and_graphs_are_planned_without_their_zoos(config):
    assert plan(settings("--config", config), H100).peak > 0


def test_a_recipe_has_the_shape_of_the_zoo_that_it_makes(tmp_path):
    words = ["--config", "digits_field_trajectory", "--out", str(tmp_path / "zoo"), "--epochs", "1"]
    assert main(["collect", *words]) == 0
    planned, made = planned_zoo("digits_field_trajectory").shape, planned_zoo(str(tmp_path / "zoo")).shape
    assert planned._replace(name="zoo") == made
    assert (made.networks, made.runs) == (60, 1)
    tasks = planned_zoo("digits_relabel").shape
    assert (tasks.networks, tasks.runs, tasks.cond_dim) == (400, 400, 10)


def test_both_phases_of_pdiff_have_a_cost_and_their_steps():
    found = plan(settings("--config", "pdiff_digits_autoencoder"), H100)
    assert [rate.steps for rate in found.rates] == [400, 800]
    assert [rate.name.partition(",")[0] for rate in found.rates] == ["autoencoder", "diffusion"]


def test_float32_ends_are_a_fifth_of_the_steps_and_hold_more():
    ends = '[{"class_path": "paramgen.generators.callbacks.Float32Ends"}]'
    precision = ["--trainer.precision", "bf16-mixed", "--trainer.callbacks", ends]
    found = plan(settings("--config", "rpg_digits_mlp", *precision), H100)
    full, half = found.rates
    assert (full.steps, half.steps) == (70, 280)
    assert full.peak > half.peak


def test_several_processes_hold_buckets_and_fsdp_divides_the_states(small):
    one, ddp, fsdp = (
        assess(small[0], m, small[1]) for m in (H100, Machine(H100.device, 4, "ddp"), Machine(H100.device, 4, "fsdp2"))
    )
    assert ddp.parts["buckets"] == ddp.sizes["gradients"]
    assert ddp.peak == one.peak + ddp.parts["buckets"]
    assert fsdp.parts["optimizer"] == pytest.approx(one.parts["optimizer"] / 4, abs=1)
    blocks = small[1].sizes["weights"] / 2  # the recurrent model has more than half of them, in two layers
    assert small[1].gathered < fsdp.sizes["weights"] < small[1].gathered + blocks
    assert fsdp.parts["gathered"] in (small[1].gathered, 2 * small[1].gathered)


@pytest.fixture
def eight_processes():
    """The mesh of the first of eight processes, whose collective operations do nothing."""
    dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    yield init_device_mesh("cpu", (8,))
    dist.destroy_process_group()


@pytest.mark.slow
def test_each_of_eight_processes_holds_of_rpg_large_what_is_planned(eight_processes):
    """At its size, on the meta device: docs/scaling.md."""
    chosen = settings(
        *["--config", "rpg_vit_base", "--config", "trainer/fsdp", "--model.optimizer.name", "adamw"],
        *["--devices", "8", "--trainer.callbacks", "[]"],
    )
    chosen.codec.lay_out(chosen.zoo.spec)
    with torch.device("meta"):
        model = RPG(*chosen.codec.shape, num_networks=chosen.zoo.networks, **chosen.arguments)
    divide(model, eight_processes)
    parameters = [*model.parameters()]
    assert sum(p.numel() for p in parameters) > 2.8e9
    optimizer = torch.optim.AdamW(parameters)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moments = [v for of in optimizer.state.values() for v in of.values() if v.dim()]
    held = [sum(local(t).nbytes for t in of) for of in (parameters, [p.grad for p in parameters], moments)]
    found = assess(chosen, Machine(H100.device, 8, "fsdp2"), dry_run(chosen, on_gpu=True))
    planned = [found.sizes[part] / 8 for part in ("weights", "gradients", "optimizer")]
    assert held == pytest.approx(planned, rel=1e-3)
    assert sum(held) == pytest.approx(5.6e9, rel=0.01)


def test_a_gpu_holds_two_workspaces_of_cublas(small):
    """As measured on an H200: docs/plan.md."""
    hopper, other, cpu = (assess(small[0], Machine(find_device(name)), small[1]) for name in ("h200", "a10g", "cpu"))
    assert (hopper.parts["workspaces"], other.parts["workspaces"]) == (67_108_864, 17_039_360)
    assert "workspaces" not in cpu.parts
    assert hopper.peak == cpu.peak + 67_108_864 + hopper.parts["zoo"] - cpu.parts.get("zoo", 0)


def test_equal_conditions_of_a_batch_are_computed_once(small):
    """Conditions are those of tasks, which several networks share: as in the batches of a fit."""
    chosen, _ = small
    zoo = chosen.zoo._replace(cond_dim=3)
    stateless = replace(chosen, arguments={**chosen.arguments, "state": {"kind": "none"}})
    one, two, each = (
        dry_run(replace(stateless, zoo=zoo._replace(conditions=n)), on_gpu=False).segments[0].flops
        for n in (1, 2, zoo.networks)
    )
    assert one < two < each
    described = planned_zoo("digits_relabel").shape
    assert described.conditions == described.runs > 1


def test_the_first_misfit_is_named_and_the_advice_fits(small):
    chosen, run = small
    device = CPU.device._replace(memory=0.8 * assess(chosen, CPU, run).peak)
    tight = assess(chosen, Machine(device), run)
    assert tight.misfit.what == "activations"
    assert "pass" in tight.misfit.stage
    advice = advise(chosen, Machine(device))
    assert advice[-1].plan.misfit is None
    assert advice[0].setting == "model.head.checkpointing"


def test_json_is_all_that_the_command_prints(capsys):
    words = ["--config", "rpg_digits_mlp", "--device", "rtx4090"]
    assert main(["plan", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 547736
    assert found["device"]["name"] == "rtx4090"
    assert found["rates"][0]["seconds"] > 0


def test_the_table_says_what_fits_and_what_does_not(small):
    chosen, run = small
    for share, word in ((1.2, "Fits"), (0.8, "Does not fit. First: activations")):
        machine = Machine(CPU.device._replace(memory=share * assess(chosen, CPU, run).peak))
        found, text = assess(chosen, machine, run), io.StringIO()
        show_plan(Console(file=text, width=140), found, chosen, machine, [])
        assert f"{found.parameters:,} trained parameters" in text.getvalue()
        assert word in text.getvalue()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "rpg_digits_mlp", "--device", "h10"], "Unknown device 'h10'. Did you mean 'h100'?"),
        (["--config", "rpg_digits_mlp", "--device", "a100"], "Did you mean 'a100-40gb'?"),
        (["--config", "rpg_digits_mlp", "--efficiency", "1.5"], "efficiency is 1.5"),
        (["--config", "rpg_digits_mlp", "--devices", "0"], "devices is 0"),
        (["--config", "rpg_digits_mlp", "--data.zoo", "digits_mlp_trajectry"], "Did you mean 'digits_mlp_trajectory'?"),
        (["--config", "rpg_digits_mp"], "Did you mean 'rpg_digits_mlp'?"),
        (["--config", "rpg_digits_mlp", "--model.tokens_per_step", "0"], "tokens_per_step"),
    ],
)
def test_mistakes_are_one_line_errors(words, message, capsys):
    assert main(["plan", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1
