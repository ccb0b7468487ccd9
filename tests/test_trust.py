"""Files of strangers: what they name is looked up, never run, read or fetched, until the user says so."""

import gc
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from conftest import write_own_module, write_zoo
from gaussian_backend import GaussianBackend
from paramgen.cli.main import main
from paramgen.core.arguments import check_arguments
from paramgen.core.codec import TokenCodec
from paramgen.core.io import write_json
from paramgen.core.trust import UntrustedError
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.loading import load_generator
from paramgen.tasks import ClassificationTask, RelabelFamily, Task, load_family, load_task, task_of
from paramgen.tasks.conditions import load_encoder
from paramgen.tasks.vision.networks import build_network

MARKER = "code-ran"
FORBIDDEN = "which is not part of paramgen: running its code needs --trust true"
TRUST = ["--trust", "true"]
COLLECT = ["collect", "--epochs", "1", "--runs", "1", "--checkpoints", "4", "--finetune.lr", "0.01", "--out", "zoo"]
EVALUATE = ["evaluate", "--zoo", "zoo", "--baselines", "none", "--n", "2", "--train_images", "100", "--out", "report"]
OWN = """
from pathlib import Path

from torch import nn

from gaussian_backend import GaussianBackend
from paramgen.core.codec import FlatCodec
from paramgen.tasks import ClassificationTask, RelabelFamily

Path("code-ran").touch()


class Plain(nn.Module):
    def __init__(self, num_classes, in_shape):
        super().__init__()
        self.layer = nn.Linear(in_shape[1] * in_shape[2], num_classes)

    def forward(self, x):
        return self.layer(x.flatten(1))


class OwnTask(ClassificationTask):
    pass


class OwnFamily(RelabelFamily):
    pass


class OwnCodec(FlatCodec):
    pass


class OwnBackend(GaussianBackend):
    pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> Iterator[str]:
    """A module of the user's in the working folder, which is not on Python's path; it leaves a file when it is run."""
    name = write_own_module(tmp_path, monkeypatch, OWN)
    yield name
    if sys.modules.pop(name, None):
        gc.collect()  # its classes too, so that other tests see no backend of this one


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> None:
    """Whose machine remembers none of the zoos that the test makes."""
    unwritable = tmp_path / "no-folder"
    unwritable.touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(unwritable))


def ran() -> bool:
    return Path(MARKER).exists()


def task_with(**arguments) -> dict:
    return {"class_path": "paramgen.tasks.ClassificationTask", "init_args": arguments}


@pytest.mark.parametrize("importable", [False, True])
@pytest.mark.parametrize(
    ("load", "config", "named"),
    [
        (load_task, {"class_path": "OWN.OwnTask"}, "OWN.OwnTask"),
        (load_task, {"class_path": "OWN.Plain.Inner"}, "OWN.Plain.Inner"),
        (load_task, task_with(network="OWN.Plain"), "OWN.Plain"),
        (load_task, {"class_path": "Member", "init_args": {"family": {"class_path": "OWN.OwnFamily"}, "name": "x"}}, "OWN.OwnFamily"),
        (load_family, {"class_path": "OWN.OwnFamily"}, "OWN.OwnFamily"),
        (load_family, {"class_path": "OWN.RelabelFamily"}, "OWN.RelabelFamily"),
        (load_family, {"class_path": "RelabelFamily", "init_args": {"network": "OWN.Plain"}}, "OWN.Plain"),
    ],
)  # fmt: skip
def test_a_class_that_a_file_names_is_not_imported(load, config, named, importable, own, tmp_path, monkeypatch):
    if importable:
        monkeypatch.syspath_prepend(str(tmp_path))
    config = json.loads(json.dumps(config).replace("OWN", own))
    with pytest.raises(UntrustedError, match=f"zoo 'x' names the class {named.replace('OWN', own)}, {FORBIDDEN}"):
        load(config, where="zoo 'x'")
    assert not ran()


def test_a_class_of_a_trusted_file_is_found_in_the_working_folder(own):
    task = load_task({"class_path": f"{own}.OwnTask", "init_args": {"network": f"{own}.Plain"}}, trust=True)
    assert ran()
    assert isinstance(task, ClassificationTask)
    assert task.build().layer.weight.shape == (10, 64)
    family = {"class_path": f"{own}.OwnFamily", "init_args": {"seen": ["0000000001"], "unseen": 1}}
    member = {"class_path": "Member", "init_args": {"family": family, "name": "0000000001"}}
    assert type(load_task(member, trust=True).family).__name__ == "OwnFamily"


def test_trust_takes_no_class_of_another_kind(own):
    with pytest.raises(ParamgenError, match="expected a subclass of Task"):
        load_task({"class_path": f"{own}.Plain"}, trust=True)
    with pytest.raises(ParamgenError, match=r"cannot import task 'nowhere\.Task'"):
        load_task({"class_path": "nowhere.Task"}, trust=True)


@pytest.mark.parametrize("path", ["ClassificationTask", "paramgen.tasks.ClassificationTask"])
def test_paramgens_own_classes_need_no_trust(path):
    assert type(load_task({"class_path": path})) is ClassificationTask
    ours = load_task(task_with(network="paramgen.tasks.vision.networks.MLP", network_args={"hidden": [8]}))
    assert ours.build().layers[0].weight.shape == (8, 64)


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("timm:hf-hub:evil/x", {}),
        ("timm:local-dir:x", {}),
        ("timm:../x", {}),
        ("torchvision:http://evil/x", {}),
        ("timm:resnet18", {"checkpoint_path": "x.pt"}),
        ("timm:resnet18", {"pretrained_cfg": {"url": "http://evil/x"}}),
        ("timm:resnet18", {"pretrained_cfg_overlay": {"file": "x.pt"}}),
        ("timm:resnet18", {"cache_dir": "x"}),
        ("timm:resnet18", {"model_name": "hf-hub:evil/x"}),
        ("timm:resnet18", {"anything": [{"deep": "https://evil/x"}]}),
        ("torchvision:resnet18", {"weights": "DEFAULT"}),
        ("torchvision:fcn_resnet50", {"weights_backbone": "DEFAULT"}),
        ("mlp", {"pretrained": True}),
        ("mlp", {"checkpoint": "x.pt"}),
    ],
)
def test_network_arguments_of_a_file_read_and_fetch_nothing(network, arguments):
    with pytest.raises(UntrustedError, match="needs --trust true"):
        load_task(task_with(network=network, network_args=arguments))
    load_task(task_with(network=network, network_args=arguments), trust=True)  # nothing is built yet


def test_plain_network_arguments_of_a_file_are_taken():
    arguments = {"pretrained": False, "act_layer": "gelu", "drop_path_rate": 0.1}
    assert load_task(task_with(network="timm:resnet18.a1_in1k", network_args=arguments)).network_args == arguments


def test_a_zoo_fetches_neither_data_nor_weights():
    assert load_task(task_with(download=True)).download is False
    assert load_task(task_with(download=True), trust=True).download is True


def test_torchvisions_networks_do_not_fetch_their_backbones(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    build_network("torchvision:lraspp_mobilenet_v3_large", 3, (3, 32, 32))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["mlp", "timm:resnet18", "torchvision:resnet18"])
def test_what_the_task_sets_is_not_taken_from_network_args(name):
    with pytest.raises(ParamgenError, match="num_classes is set by the task"):
        build_network(name, 10, (1, 8, 8), num_classes=3)
    with pytest.raises(ParamgenError):
        build_network(name, 10, (1, 8, 8), name="hf-hub:evil/x", model_name="hf-hub:evil/x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_fraction": "0.1"}, "val_fraction is '0.1', expected float"),
        ({"split_seed": True}, "split_seed is True, expected int"),
        ({"split_seed": -1}, "split_seed is -1, expected 0 or more"),
        ({"dataset": 3}, "dataset is 3, expected str"),
        ({"network_args": [1]}, "network_args is [1], expected dict[str, Any] | None"),
        ({"image_size": {"class_path": "os.system"}}, "image_size is"),
        ({"datset": "digits"}, "has no argument 'datset'"),
    ],
)
def test_arguments_of_a_file_are_of_the_type_that_the_class_takes(arguments, message):
    with pytest.raises(ParamgenError) as error:
        load_task(task_with(**arguments))
    assert message in str(error.value)


@pytest.mark.parametrize("root", ["a" * 300, "a\0b"])
def test_a_root_that_no_folder_can_have_is_one_line(root):
    with pytest.raises(ParamgenError, match="cannot look for data in"):
        load_task(task_with(dataset="image_folder", root=root)).build()


def test_recorded_tasks_and_families_pass_the_check():
    for made in (ClassificationTask(network_args={"hidden": (3, 4)}), RelabelFamily(seen=["0000000001"], unseen=2)):
        config = json.loads(json.dumps(made.config()))
        check_arguments(type(made), config["init_args"], "it")


@pytest.mark.parametrize(
    "config", [None, [], {"class_path": 3}, {"class_path": "ClassificationTask", "init_args": [1]}]
)
def test_what_describes_no_task_is_refused(config):
    with pytest.raises(ParamgenError, match="describes no task"):
        load_task(config)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "file", "path": "/etc/hostname"},
        {"kind": "image"},
        {"kind": "image", "pretrained": False, "weights": "x.safetensors"},
        {"kind": "statistics", "space": "features"},
    ],
)
def test_conditions_of_a_file_read_and_fetch_nothing(config):
    with pytest.raises(UntrustedError, match=r"zoo 'x' makes its conditions from .* needs --trust true"):
        load_encoder(config, where="zoo 'x'")


# checkpoints


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """A checkpoint of the smallest backend, and a zoo that it was fitted on beside it."""
    folder = tmp_path_factory.mktemp("fit")
    data = ParameterDataModule(str(write_zoo(folder / "zoo", networks=9).path), TokenCodec(8), batch_size=4)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "num_sanity_val_steps": 0}
    trainer = Trainer(accelerator="cpu", max_steps=2, max_epochs=-1, default_root_dir=folder, **quiet)
    trainer.fit(GaussianBackend(data.seq_len, data.token_dim), data)
    trainer.save_checkpoint(folder / "x.ckpt")
    return folder / "x.ckpt"


def altered(fitted: Path, backend: str | None = None, codec: str | None = None, **hyper_parameters) -> str:
    """The checkpoint with other names in it, in the working folder."""
    saved = torch.load(fitted, weights_only=True)
    saved["paramgen"]["class_path"] = backend or saved["paramgen"]["class_path"]
    saved["paramgen"]["codec"]["class_path"] = codec or saved["paramgen"]["codec"]["class_path"]
    saved["hyper_parameters"] |= hyper_parameters
    torch.save(saved, "altered.ckpt")
    return "altered.ckpt"


@pytest.mark.parametrize("names", [{"backend": "{}.OwnBackend"}, {"backend": "{}.Plain"}, {"codec": "{}.OwnCodec"}])
def test_a_backend_or_codec_that_a_checkpoint_names_is_not_imported(names, fitted, own):
    names = {key: name.format(own) for key, name in names.items()}
    with pytest.raises(UntrustedError, match=f"'altered.ckpt' names the class {own}.*, {FORBIDDEN}"):
        load_generator(altered(fitted, **names))
    assert not ran()


def test_what_lightning_would_import_from_a_checkpoint_is_not_looked_at(fitted, own):
    path = altered(fitted, _instantiator=f"{own}.Plain", _class_path=f"{own}.Plain")
    assert len(load_generator(path).sample(2)) == 2
    assert not ran()


@pytest.mark.parametrize(
    "names", [{"_class_path": "{}.Backend"}, {"lr": {"class_path": "{}.Plain"}}, {"class_path": "{}.B"}]
)
def test_a_fit_goes_on_from_no_checkpoint_that_names_a_class(names, fitted, own, capsys):
    path = altered(fitted, **json.loads(json.dumps(names).replace("{}", own)))
    line = ["fit", "--model", "GaussianBackend", "--data.zoo", str(fitted.parent / "zoo"), "--ckpt_path", path]
    assert main([*line, "--trainer.logger", "false"]) == 2
    assert not ran()
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("paramgen: ")]) == 1


def test_a_trusted_checkpoint_brings_its_own_backend_and_codec(fitted, own, capsys):
    path = altered(fitted, f"{own}.OwnBackend")
    assert main(["sample", "--ckpt_path", path, "--n", "2"]) == 2
    assert f"names the class {own}.OwnBackend, {FORBIDDEN}" in capsys.readouterr().err
    assert not ran()
    assert main(["sample", "--ckpt_path", path, "--n", "2", *TRUST]) == 0
    assert type(load_generator(path, trust=True)).__name__ == "OwnBackend"


@pytest.mark.parametrize(
    ("hyper_parameters", "message"),
    [
        ({"lr": "high"}, "lr is 'high', expected float"),
        ({"seq_len": 3}, "does not fit its own GaussianBackend"),
        ({"seq_len": -1}, "does not fit its own GaussianBackend"),
        ({"seq_len": 2**62}, "does not fit its own GaussianBackend"),
    ],
)
def test_a_checkpoint_with_other_arguments_is_refused(hyper_parameters, message, fitted, own):
    with pytest.raises(ParamgenError, match=message):
        load_generator(altered(fitted, **hyper_parameters))


# what the user types


def test_an_own_network_lives_in_the_working_folder(own, stranger, tmp_path, capsys):
    """Collected by its typed name; from the zoo's data it runs only for who trusts it."""
    task = ["--task", "ClassificationTask", "--task.network", f"{own}.Plain"]
    assert main([*COLLECT, *task]) == 0
    del sys.modules[own]
    Path(MARKER).unlink()
    sys.path.remove(str(tmp_path))
    capsys.readouterr()
    assert main(EVALUATE) == 2
    assert f"zoo 'zoo' names the class {own}.Plain, {FORBIDDEN}" in capsys.readouterr().err
    with pytest.raises(UntrustedError):
        task_of(Zoo("zoo"))
    assert not ran()
    assert main([*EVALUATE, *TRUST]) == 0
    assert ran()
    assert json.loads(Path("report/results.json").read_text())["rows"][0]["name"] == "zoo"
    assert "--trust" in json.loads(Path("report/results.json").read_text())["command"]


def test_a_comparison_is_refused_before_it_fits_anything_or_runs_with_trust(own, stranger, capsys):
    assert main([*COLLECT, "--task", "ClassificationTask", "--task.network", f"{own}.Plain"]) == 0
    fit = {"trainer": {"max_steps": 2, "accelerator": "cpu"}, "model": {"class_path": "GaussianBackend"}}
    write_json(Path("fit.json"), {**fit, "quality": {"sample_every": 1}})
    line = ["compare", "--zoos", "{z: {path: zoo}}", "--generators", "{g: {fit: fit.json}}", "--out", "compared"]
    assert main([*line, "--baselines", "none", "--n", "2"]) == 2
    assert not Path("compared").exists()
    capsys.readouterr()
    assert main([*line, "--baselines", "none", "--n", "2", *TRUST]) == 0
    assert "samples are not scored" not in capsys.readouterr().err
    assert len(json.loads(Path("compared/z/results.json").read_text())["rows"]) == 2


def test_a_fit_on_a_zoo_with_a_class_of_its_own_learns_without_looking(own, stranger, capsys):
    assert main([*COLLECT, "--task", "ClassificationTask", "--task.network", f"{own}.Plain"]) == 0
    quiet = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.max_steps", "3"]
    line = ["fit", "--model", "GaussianBackend", "--data.zoo", "zoo", *quiet, "--trainer.accelerator", "cpu"]
    capsys.readouterr()
    assert main(line) == 0
    said = capsys.readouterr().err
    assert said.count("samples are not scored") == 1
    assert f"zoo 'zoo' names the class {own}.Plain" in said
    assert main([*line, "--data.trust", "true"]) == 0
    assert "samples are not scored" not in capsys.readouterr().err


def test_own_tasks_and_codecs_are_typed_too(own, tmp_path, capsys):
    assert main([*COLLECT, "--task", f"{own}.OwnTask"]) == 0
    assert isinstance(task_of(Zoo("zoo", trust=True)), Task)
    line = ["fit", "--model", "GaussianBackend", "--data.zoo", "zoo", "--data.codec", f"{own}.Nothing"]
    assert main(line) == 2
    assert f"{own}.Nothing" in capsys.readouterr().err


def test_the_working_folder_hides_nothing_and_is_not_searched_unasked(own, tmp_path, capsys):
    for name in ("json.py", "bitsandbytes.py", "apex.py"):
        (tmp_path / name).write_text(OWN)
    assert main(["collect", "--task", "json.Decoder", "--out", "zoo"]) == 2
    assert main(["collect", "--task", "nowhere.Task", "--out", "zoo"]) == 2
    assert main([*COLLECT, "--task", "ClassificationTask"]) == 0
    assert str(tmp_path) not in sys.path
    assert not ran()


def test_help_on_a_class_finds_it_in_the_working_folder(own, capsys):
    for command, asked, name in (("fit", "--model.help", "OwnBackend"), ("collect", "--task.help", "OwnTask")):
        with pytest.raises(SystemExit, match=r"^0$"):
            main([command, asked, f"{own}.{name}"])
        assert f"Help for {asked}={own}.{name}" in capsys.readouterr().out
        assert main([command, asked, "nowhere.Class"]) == 2
        assert capsys.readouterr().err == f"paramgen: {asked}: No module named 'nowhere'\n"
    assert main(["fit", "--model.help", "PDif"]) == 2
    assert "unknown ParameterGenerator 'PDif'. Did you mean 'PDiff'?" in capsys.readouterr().err


def test_a_doctored_zoo_is_refused_by_every_command_that_would_run_it(own, capsys):
    main([*COLLECT, "--task", "ClassificationTask"])
    values = json.loads(Path("zoo/zoo.json").read_text())
    values["task"] = {"class_path": f"{own}.OwnTask", "init_args": {}}
    for entry in values["entries"]:
        entry |= {"task": str(entry["step"] % 2), "condition": [0.0]}
    write_json(Path("zoo/zoo.json"), values)
    commands = (
        EVALUATE,
        ["zoo", "align", "--zoo", "zoo", "--out", "aligned"],
        ["unseen", "--zoo", "zoo"],
        ["adapters", "--zoo", "zoo", "--samples", "zoo", "--out", "out"],
        ["flips", "--zoo", "zoo"],
        ["interpolate", "--zoo", "zoo", "--tasks", '["0", "1"]'],
        ["compare", "--zoos", "{z: {path: zoo}}", "--baselines", "none"],
    )
    for line in commands:
        capsys.readouterr()
        assert main(line) == 2, line
        assert f"names the class {own}.OwnTask, {FORBIDDEN}" in capsys.readouterr().err, line
    assert not ran()
