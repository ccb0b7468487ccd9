import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from measured import folder_of, make_zoo
from paramgen.cli.main import main
from paramgen.core.io import write_tensors
from paramgen.core.params import ParamSpec
from paramgen.core.paths import distinct_names
from paramgen.core.sample_writer import PerNetwork, write_samples
from paramgen.core.samples import INDEX, PARTIAL, SampleInfo, read_samples
from paramgen.core.schema import load_schema
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    state = network().state_dict()
    spec = ParamSpec.of(state, ["0.weight", "1.weight", "1.running_var"])
    base = {name: t for name, t in state.items() if name not in spec.names}
    with_task = {"class_path": "paramgen.tasks.Digits", "init_args": {}}
    writer = ZooWriter(tmp_path / "zoo", spec, base, with_task, {})
    for run in range(3):
        generated = {name: network(run).state_dict()[name] for name in spec.names}
        writer.add(generated, run=run, step=0, seed=run)
    return writer.close()


def complete(zoo: Zoo, n: int) -> list[dict[str, torch.Tensor]]:
    return [
        zoo.complete({name: torch.rand(zoo.base().get(name, zoo[0][name]).shape) for name in zoo.spec.names})
        for _ in range(n)
    ]


def test_what_is_written_loads_strictly_and_reads_back(zoo, tmp_path):
    networks = complete(zoo, 3)
    info = SampleInfo(generator="pdiff", seed=7, scheduler="DDIM", num_inference_steps=20, fit_seconds=1.5)
    write_samples(tmp_path / "s", networks, info, PerNetwork([2, 0, 1], [1, 0, 0]))
    files = sorted((tmp_path / "s").glob("*.safetensors"))
    assert len(files) == 3
    for file in files:
        network().load_state_dict(load_file(file), strict=True)
    samples = read_samples(tmp_path / "s", zoo)
    assert torch.equal(samples.weights, zoo.spec.flatten_many(networks))
    assert (samples.name, samples.info, samples.total) == ("s", info, 3)
    assert samples.identity.tolist() == [2, 0, 1]
    assert samples.run.tolist() == [1, 0, 0]


def test_a_trajectory_is_read_back_replaced_and_checked(zoo, tmp_path):
    way = torch.rand(3, 2, zoo.spec.numel)
    folder = write_samples(tmp_path / "drawn", complete(zoo, 4), SampleInfo(), trajectory=way)
    found = read_samples(folder, zoo)
    assert torch.equal(found.trajectory, way)
    assert len(found.weights) == 4
    save_file({"trajectory": way[:, :, :-1].contiguous()}, folder / "trajectory.safetensors")
    with pytest.raises(ParamgenError, match=r"trajectory of shape \(3, 2, \d+\), expected"):
        read_samples(folder, zoo)
    write_samples(folder, complete(zoo, 4), SampleInfo(), overwrite=True)
    assert read_samples(folder, zoo).trajectory is None


def test_a_limit_reads_the_first(zoo, tmp_path):
    networks = complete(zoo, 4)
    samples = read_samples(write_samples(tmp_path / "s", networks, SampleInfo()), zoo, limit=2)
    assert torch.equal(samples.weights, zoo.spec.flatten_many(networks[:2]))
    assert samples.total == 4


def test_a_folder_of_another_program_needs_no_index(zoo, tmp_path):
    (tmp_path / "foreign").mkdir()
    state = complete(zoo, 1)[0]
    state["1.num_batches_tracked"] = torch.tensor(999)  # a counter, not a weight
    save_file(state, tmp_path / "foreign" / "a.safetensors")
    save_file({name: state[name] for name in zoo.spec.names}, tmp_path / "foreign" / "b.safetensors")
    samples = read_samples(tmp_path / "foreign", zoo)
    assert torch.equal(samples.weights[0], samples.weights[1])
    assert samples.identity is None
    assert samples.run is None


def test_tied_tensors_are_written_out(zoo, tmp_path):
    weight = torch.rand(2, 2)
    write_samples(tmp_path / "s", [{"a": weight, "b": weight}], SampleInfo())
    assert load_file(tmp_path / "s" / "network_0000.safetensors").keys() == {"a", "b"}


def test_nan_is_read_for_the_evaluator_to_count(zoo, tmp_path):
    state = complete(zoo, 1)[0]
    state["0.weight"][0, 0] = float("nan")
    assert read_samples(write_samples(tmp_path / "s", [state], SampleInfo()), zoo).weights.isnan().sum() == 1


def test_samples_are_not_overwritten_unasked(zoo, tmp_path):
    write_samples(tmp_path / "s", complete(zoo, 3), SampleInfo())
    with pytest.raises(ParamgenError, match="already holds samples"):
        write_samples(tmp_path / "s", complete(zoo, 1), SampleInfo())
    write_samples(tmp_path / "s", complete(zoo, 1), SampleInfo(), overwrite=True)
    assert len(list((tmp_path / "s").glob("*.safetensors"))) == 1


def test_equal_folder_names_are_told_apart(tmp_path):
    folders = [tmp_path / "a" / "samples", tmp_path / "b" / "samples"]
    assert distinct_names([*folders, tmp_path / "other"]) == ["a/samples", "b/samples", "other"]
    seeds = [f"/runs/seed{n}/pdiff/samples" for n in range(2)]
    assert distinct_names(seeds) == ["seed0/pdiff/samples", "seed1/pdiff/samples"]
    with pytest.raises(ParamgenError, match=r"samples folder '/runs/seed0/pdiff/samples' is given twice"):
        distinct_names([seeds[0], f"{seeds[0]}/."])


def test_no_networks_are_refused(zoo, tmp_path):
    with pytest.raises(ParamgenError, match="N = 0"):
        write_samples(tmp_path / "s", [], SampleInfo())
    assert not (tmp_path / "s").exists()


def test_a_missing_folder_is_named(zoo, tmp_path):
    with pytest.raises(ParamgenError, match=r"samples folder not found: .*absent"):
        read_samples(tmp_path / "absent", zoo)


def test_an_empty_folder_is_named_with_what_it_holds_instead(zoo, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParamgenError, match="empty holds no networks"):
        read_samples(tmp_path / "empty", zoo)
    (tmp_path / "empty" / "net.pt").touch()
    with pytest.raises(ParamgenError, match=r"net\.pt: save them as safetensors"):
        read_samples(tmp_path / "empty", zoo)


def altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("damage", [altered, truncated, Path.unlink])
def test_a_damaged_file_is_named(damage, zoo, tmp_path):
    write_samples(tmp_path / "s", complete(zoo, 2), SampleInfo())
    damage(tmp_path / "s" / "network_0001.safetensors")
    with pytest.raises(ParamgenError, match=r"network_0001\.safetensors"):
        read_samples(tmp_path / "s", zoo)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("1.weight"), r"network_0000.*no tensor '1\.weight'"),
        (
            lambda s: s.update({"0.weight": torch.zeros(4, 9)}),
            r"network_0000.*'0\.weight' has shape \(4, 9\).*\(4, 3\)",
        ),
        (
            lambda s: s.update({"head.bias": torch.zeros(2)}),
            r"network_0000.*'head\.bias' is neither generated nor kept fixed",
        ),
        (lambda s: s.update({"0.weight": torch.zeros(4, 3, dtype=torch.int64)}), r"network_0000.*int64"),
        (lambda s: s.update({"2.bias": s["2.bias"] + 1}), r"network_0000.*'2\.bias' is not generated, but differs"),
    ],
)
def test_another_architecture_is_refused_saying_what_differs_and_where(change, message, zoo, tmp_path):
    state = complete(zoo, 1)[0]
    change(state)
    write_samples(tmp_path / "s", [state], SampleInfo())
    with pytest.raises(ParamgenError, match=message):
        read_samples(tmp_path / "s", zoo)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 9, "networks": []}', '{"format": 1, "networks": [{"name": 1}]}']
)
def test_a_broken_index_is_named(text, zoo, tmp_path):
    write_samples(tmp_path / "s", complete(zoo, 1), SampleInfo())
    (tmp_path / "s" / INDEX).write_text(text)
    with pytest.raises(ParamgenError, match=INDEX):
        read_samples(tmp_path / "s", zoo)


def test_an_index_cannot_point_outside_its_folder(zoo, tmp_path):
    write_samples(tmp_path / "s", complete(zoo, 1), SampleInfo())
    index = json.loads((tmp_path / "s" / INDEX).read_text())
    index["networks"][0]["file"] = "../elsewhere.safetensors"
    (tmp_path / "s" / INDEX).write_text(json.dumps(index))
    with pytest.raises(ParamgenError, match=r"networks\[0\]\.file is .*, expected a path inside of the folder"):
        read_samples(tmp_path / "s", zoo)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": "warm"}, "samples.json: temperature is 'warm', expected a number or null"),
        ({"history": {"val": [[1]]}}, r"samples.json: history.val\[0\] has 1 items, expected at least 2"),
        ({"networks": [{"file": "/dev/zero"}]}, r"networks\[0\].file is '/dev/zero', expected a path inside"),
        ({"networks": [{"file": "network_0000.safetensors"}] * 2}, "names the file 'network_0000.safetensors' twice"),
        ({"networks": [{"file": "network_0000.safetensors"}, {"file": "x"}]}, "x: no such file"),
        ({"networks": [{"file": "network_0000.safetensors", "run": 0.5}]}, r"networks\[0\].run is 0.5, expected an integer or null"),
    ],
)  # fmt: skip
def test_a_field_of_the_index_that_cannot_be_is_named(fields, message, zoo, tmp_path):
    write_samples(tmp_path / "s", complete(zoo, 1), SampleInfo())
    index = json.loads((tmp_path / "s" / INDEX).read_text())
    (tmp_path / "s" / INDEX).write_text(json.dumps({**index, **fields}))
    with pytest.raises(ParamgenError, match=message):
        read_samples(tmp_path / "s", zoo)


def test_the_schema_of_the_index_knows_every_field():
    known = load_schema("samples")["properties"]
    assert {field.name for field in dataclasses.fields(SampleInfo)} <= known.keys()


class Killed(BaseException):
    """As kill -9: nothing is caught, nothing is tidied."""


@pytest.mark.parametrize("before", ["nothing", "samples"])
@pytest.mark.parametrize("after", [0, 2, 4])
def test_samples_of_a_killed_command_are_refused_unless_asked_for_and_replaced_by_the_next(
    zoo, tmp_path, monkeypatch, before, after
):
    folder, way = tmp_path / "s", torch.rand(2, 1, zoo.spec.numel)
    if before == "samples":
        write_samples(folder, complete(zoo, 6), SampleInfo(), trajectory=way)
    written = []

    def killed(path, tensors, **how):
        if len(written) == after:
            raise Killed
        written.append(path.name)
        return write_tensors(path, tensors, **how)

    with monkeypatch.context() as patch:
        patch.setattr("paramgen.core.sample_writer.write_tensors", killed)
        with pytest.raises(Killed):
            write_samples(folder, complete(zoo, 4), SampleInfo(), overwrite=True, trajectory=way)
    with pytest.raises(ParamgenError, match=r"s is incomplete: the command that wrote it was stopped.*--partial true"):
        read_samples(folder, zoo)
    if after:
        assert len(read_samples(folder, zoo, partial=True).weights) == after
    again = complete(zoo, 2)
    write_samples(folder, again, SampleInfo())  # no overwrite: what is there are no samples
    assert torch.equal(read_samples(folder, zoo).weights, zoo.spec.flatten_many(again))
    assert sorted(path.name for path in folder.iterdir()) == [
        "network_0000.safetensors",
        "network_0001.safetensors",
        "samples.json",
    ]


def test_evaluate_measures_incomplete_samples_when_asked(tmp_path, capsys):
    zoo = make_zoo(tmp_path / "zoo", runs=4, heldout=1, hidden=[4])
    folder = folder_of(zoo, zoo.matrix([0, 1, 2]), tmp_path / "torn")
    (folder / INDEX).rename(folder / PARTIAL)
    asked = ["evaluate", "--zoo", str(zoo.path), "--samples", str(folder), "--out", str(tmp_path / "out")]
    asked += ["--baselines", "none"]
    assert main(asked) == 2
    assert "torn is incomplete" in capsys.readouterr().err
    assert main([*asked, "--partial", "true"]) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["n"] == 3
