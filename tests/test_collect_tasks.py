"""Zoos of families: one network or adapter a task, with its condition."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity

from paramgen.cli.main import main as paramgen
from paramgen.cli.parser import ConfigFile, OneLineErrors
from paramgen.collect.multi import Pretraining, Reweighted, main
from paramgen.collect.train import generator
from paramgen.core.io import read_json, read_tensors, write_tensors
from paramgen.core.paths import list_configs
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError
from paramgen.generators.data import ParameterDataModule
from paramgen.symmetry.layout import UnitLayout
from paramgen.tasks import RelabelFamily, RotatedFamily, load_family, score_family
from paramgen.tasks.conditions import CodeCondition, load_encoder
from paramgen.tasks.lora import LoraSettings
from test_camera_traps import COUNTS, write_traps

peft = pytest.importorskip("peft")


def relabel() -> RelabelFamily:
    return RelabelFamily(network_args={"hidden": [8]}, seen=5, unseen=2)


def rotations() -> RotatedFamily:
    return RotatedFamily(
        seen=[-40.0, 0.0, 40.0], unseen=[20.0], network_args={"hidden": [16]}, lora=LoraSettings(["layers.*"], r=2)
    )


def collect_rotations(out: Path, **more) -> Zoo:
    settings = {"steps": 60, "networks": 3, "save_every": 5, "pretraining": Pretraining(steps=150)} | more
    main(rotations(), str(out), CodeCondition(dim=2), **settings)
    return Zoo(out)


@pytest.fixture(scope="module")
def converged(tmp_path_factory) -> Zoo:
    return collect_rotations(tmp_path_factory.mktemp("zoos") / "H", start="converged")


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> Zoo:
    out = tmp_path_factory.mktemp("zoos") / "codes"
    main(relabel(), str(out), CodeCondition(dim=10), steps=150)
    return Zoo(out)


def test_a_zoo_of_one_task_without_conditions_is_evaluated_like_any_other(tmp_path):
    family = RotatedFamily(seen=[30.0], unseen=[], network_args={"hidden": [8]}, lora=LoraSettings(["layers.*"], r=2))
    main(family, str(tmp_path / "zoo"), steps=60, networks=4, save_every=10, pretraining=Pretraining(steps=60))
    zoo = Zoo(tmp_path / "zoo")
    assert ParameterDataModule(str(zoo.path)).cond_dim == 0
    assert "condition" not in zoo.meta
    assert [e.step for e in zoo.entries] == [60, 70, 80, 90]
    where = ["--out", str(tmp_path / "report"), "--n", "2", "--baselines", "[copy, soup-2]"]
    assert paramgen(["evaluate", "--zoo", str(zoo.path), *where]) == 0
    rows = {row["name"]: row for row in read_json(tmp_path / "report" / "results.json")["rows"]}
    expected = score_family(zoo, [zoo[i] for i in range(4)], ["rotation+030"] * 4, "test").mean()
    assert rows["zoo"]["values"]["mean"] == pytest.approx(float(expected), abs=1e-6)


def test_every_task_has_a_network_that_knows_it_and_its_condition(codes):
    family = load_family(codes.task_config)
    assert [e.task for e in codes.entries] == family.names
    for entry in codes.entries:
        assert entry.condition == [float(bit) for bit in entry.task]
        assert entry.split == ("heldout" if entry.task in family.unseen else "train")
        assert entry.scores["val"]["score"] > 0.8
    own = score_family(codes, list(codes), family.names, "val", family)
    others = score_family(codes, list(codes), [*family.names[1:], family.names[0]], "val", family)
    assert own.mean() > others.mean() + 0.2
    recorded = [e.scores["val"]["score"] for e in codes.entries]
    assert own.tolist() == pytest.approx(recorded)


def test_the_zoo_says_what_made_its_conditions(codes):
    family = load_family(codes.task_config)
    encoder = load_encoder(codes.meta["condition"])
    for entry in codes.entries:
        assert encoder.encode(family.describe(entry.task)).tolist() == entry.condition


def test_generators_learn_from_seen_tasks_alone(codes):
    data = ParameterDataModule(str(codes.path), batch_size=5, steps_per_epoch=1)
    data.setup()
    (batch,) = list(data.train_dataloader())
    assert (data.cond_dim, data.num_networks) == (10, 5)
    seen = {tuple(map(float, name)) for name in load_family(codes.task_config).seen}
    assert {tuple(c) for c in batch.condition.tolist()} == seen


def test_only_adapters_are_generated_and_the_rest_is_shared(converged):
    assert len(converged) == 4 * 3
    assert all(".lora_" in name for name in converged.spec.names)
    network = load_family(converged.task_config).build()
    network.load_state_dict(converged.full(0), strict=True)
    assert {e.step for e in converged.entries} == {60, 65, 70}


def test_adapters_of_one_start_are_nearer_and_of_a_converged_one_nearest(converged, tmp_path):
    """Wild-P-Diff's L, M, H (its Fig. 6): similarity between the tasks' adapters."""
    similarity = []
    for zoo in (
        collect_rotations(tmp_path / "L", start="random"),
        collect_rotations(tmp_path / "M", start="same"),
        converged,
    ):
        last = torch.stack([zoo.spec.flatten(zoo[i]) for i, e in enumerate(zoo.entries) if e.step == 70])
        similarity.append(float(cosine_similarity(last[0], last[1:], dim=1).mean()))
    low, middle, high = similarity
    assert abs(low) < 0.3 < middle < high
    assert high > 0.7


def test_a_fixed_gauge_changes_the_weights_and_no_score(converged, tmp_path):
    fixed = collect_rotations(tmp_path / "svd", start="converged", gauge="svd")
    assert not torch.allclose(fixed.matrix(), converged.matrix(), atol=1e-2)
    for a, b in zip(fixed.entries, converged.entries, strict=True):
        assert a.scores["val"] == pytest.approx(b.scores["val"], abs=0.02)


def test_generated_adapters_are_written_for_peft(converged, tmp_path):
    for i in (0, 5):
        write_tensors(tmp_path / "samples" / f"{i:04d}.safetensors", converged.full(i))
    arguments = ["--samples", str(tmp_path / "samples"), "--zoo", str(converged.path), "--out", str(tmp_path / "out")]
    assert paramgen(["adapters", *arguments]) == 0
    family = load_family(converged.task_config)
    plain, ours = family.plain(), family.build()
    plain.load_state_dict(read_tensors(tmp_path / "out" / "base.safetensors"), strict=True)
    ours.load_state_dict(converged.full(5))
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "out" / "0005")
    x = torch.randn(4, 1, 8, 8)
    assert torch.allclose(theirs(x), ours(x), atol=1e-5)


def test_whole_networks_are_not_written_as_adapters(codes, tmp_path, capsys):
    assert paramgen(["adapters", "--samples", str(codes.path), "--zoo", str(codes.path), "--out", str(tmp_path)]) == 2
    assert "holds complete networks, not adapters" in capsys.readouterr().err


def test_a_half_written_zoo_goes_on_with_what_is_left(codes, tmp_path):
    class StopError(Exception):
        pass

    written = []

    def stop(self, *args, **more):
        if len(written) == 3:
            raise StopError
        written.append(more["run"])
        return add(self, *args, **more)

    add = ZooWriter.add
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZooWriter, "add", stop)
        with pytest.raises(StopError):
            main(relabel(), str(tmp_path / "half"), CodeCondition(dim=10), steps=150)
    main(relabel(), str(tmp_path / "half"), CodeCondition(dim=10), steps=150)
    assert torch.equal(Zoo(tmp_path / "half").matrix(), codes.matrix())


def test_reweighted_batches_show_every_class_equally_often():
    data = RelabelFamily(seen=["1000000000"], unseen=0).task("1000000000").data("train")
    order = torch.zeros(20, 2, 50, dtype=torch.long)
    seen = torch.cat([y for _, y in Reweighted(data).training_batches(order, [generator(0), generator(1)])], 1)
    assert data.targets.float().mean() < 0.12
    assert torch.allclose(seen.float().mean(1), torch.tensor(0.5), atol=0.06)
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"start": "converge"}, "start is 'converge', expected random, same or converged"),
        ({"gauge": "sdv"}, "gauge is 'sdv', expected none, svd or reference"),
        ({"start": "converged", "start_task": "010"}, "unknown seen task '010'.*pooled"),
        ({"gauge": "svd"}, "gauge 'svd' is for adapters"),
        ({"condition": CodeCondition(dim=9)}, "10 numbers, expected 9"),
        ({"parameters": ["layer.*"]}, "matches nothing"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained_long(settings, message, tmp_path):
    settings = {"condition": CodeCondition(dim=10), "steps": 2} | settings
    with pytest.raises(ParamgenError, match=message):
        main(relabel(), str(tmp_path / "zoo"), **settings)


@pytest.mark.slow
def test_efficientnet_on_camera_traps_end_to_end(tmp_path, monkeypatch):
    """Wild-P-Diff's shipped configs on a small image set, a few steps each, from annotations to what peft loads; 13 GB of memory."""
    monkeypatch.chdir(tmp_path)
    write_traps(tmp_path, {f"L{i}": COUNTS for i in range(4)})
    family = {
        "annotations": "traps.json",
        "root": ".",
        "pretrain": '["L0"]',
        "seen": '["L1", "L2"]',
        "unseen": '["L3"]',
        "classes": 3,
        "pretrained": "false",
        "image_size": 32,
        "num_workers": 0,
    }
    small = {"steps": 3, "networks": 2, "save_every": 1, "pretraining.steps": 2, "pretraining.optim.batch_size": 8}
    encoder = {"condition.init_args.name": "vit_tiny_patch16_224", "condition.init_args.pretrained": "false"}
    settings = {f"family.init_args.{n}": v for n, v in family.items()} | small | encoder | {"optim.batch_size": 8}
    run("collect_tasks", config="camera_traps_efficientnet", out="zoo", **settings)
    zoo = Zoo("zoo")
    assert zoo.spec.numel == 360_690
    assert [e.split for e in zoo.entries] == ["train"] * 4 + ["heldout"] * 2
    assert all(len(e.condition) == 192 for e in zoo.entries)

    fast = {
        "model.init_args.autoencoder.steps": 1,
        "trainer.max_steps": 2,
        "trainer.precision": 32,
        "trainer.accelerator": "cpu",
    }
    run("fit", config="wild_efficientnet_lora", **{"data.zoo": "zoo", "checkpoint.dirpath": "fit", **fast})
    run("sample", ckpt_path="fit/last.ckpt", n=1, out="samples", num_inference_steps=2)
    run("adapters", samples="samples", zoo="zoo", out="adapters")

    made = load_family(zoo.task_config)
    ours, plain = made.build().eval(), made.plain().eval()
    ours.load_state_dict(zoo.complete(read_tensors(next(Path("samples").glob("*.safetensors")))), strict=True)
    plain.load_state_dict(read_tensors(Path("adapters/base.safetensors")), strict=True)
    theirs = peft.PeftModel.from_pretrained(plain, "adapters/network_0000").eval()
    x, _ = next(iter(made.task("L1").data("test").batches(4)))
    assert torch.allclose(ours(x), theirs(x), atol=1e-4)


def run(command: str, **options: object) -> None:
    assert not paramgen([command, *(word for name, value in options.items() for word in (f"--{name}", str(value)))])


def test_shipped_configs_of_families_are_parsed_by_their_command():
    families = {name for name, path in list_configs("zoo").items() if "\nfamily:" in path.read_text()}
    assert {"digits_relabel", "digits_rotations_lora", "pacs_domains", "camera_traps_efficientnet"} <= families
    for name in families:
        parser = OneLineErrors()
        parser.add_argument("--config", action=ConfigFile, folder="zoo")
        parser.add_function_arguments(main, sub_configs=True)
        parsed = parser.parse_args(["--config", name])
        assert parsed.out.endswith(name)


def test_the_hidden_units_of_a_familys_network_are_found(codes):
    layout = UnitLayout.from_dict(ParameterDataModule(str(codes.path)).layout)
    assert layout.size == codes.spec.numel
    assert [units for units, _ in layout.unit_shapes] == [8]
