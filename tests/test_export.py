"""Exported networks are loaded by the library that they are for, and compute what the generated networks compute."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from conftest import write_own_module
from gaussian_backend import GaussianBackend
from paramgen.cli.commands.export import main as export
from paramgen.cli.main import main
from paramgen.core.params import ParamSpec
from paramgen.core.sample_writer import write_samples
from paramgen.core.samples import SampleInfo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError
from paramgen.tasks import ClassificationTask, RelabelFamily, ScorerTask, Task
from paramgen.tasks.lora import LoraSettings, adapter_spec, into_adapted


def small_transformer() -> nn.Module:
    """A tiny network of transformers."""
    from transformers import ViTConfig, ViTForImageClassification

    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=10, **size))


class Wrapped(nn.Module):
    """A network of one's own around one of transformers, as tasks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_transformer()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).logits


class Denoiser(nn.Module):
    """A network of one's own around one of diffusers."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.unet = UNet2DModel(
            8,
            1,
            1,
            block_out_channels=(4, 4),
            layers_per_block=1,
            norm_num_groups=2,
            attention_head_dim=2,
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.unet(x, 1).sample


def score(network: nn.Module) -> float:
    """Never called: nothing is scored here."""
    raise AssertionError


def folder_of(place: Path, task: Task, n: int = 2, seed: int = 0) -> Path:
    """A zoo of untrained networks of a task, all different, and samples that belong to it."""
    torch.manual_seed(seed)
    states = [task.build().state_dict() for _ in range(n)]
    writer = ZooWriter(place / "zoo", ParamSpec.of(task.build()), {}, task.config(), {})
    for i, state in enumerate(states):
        writer.add(state, run=i, step=0, seed=i, split="train" if i else "val")
    writer.close()
    write_samples(place / "samples", states, SampleInfo(zoo=str(place / "zoo")))
    return place


def outputs(task: Task, folder: Path, index: int, x: torch.Tensor) -> torch.Tensor:
    """What a sampled network computes."""
    from safetensors.torch import load_file

    network = task.build().eval()
    network.load_state_dict(load_file(folder / "samples" / f"network_{index:04d}.safetensors"))
    return network(x)


def images(n: int = 3, *shape: int) -> torch.Tensor:
    return torch.randn(n, *(shape or (1, 8, 8)), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("digits") / "author's", ClassificationTask(network="cnn_digits"))


def written(folder: Path, format: str, **arguments: Any) -> Path:
    return export(format, samples=str(folder / "samples"), out=str(folder / f"as_{format}"), trust=True, **arguments)


def loaded(out: Path, **names: Any) -> dict[str, Any]:
    """What the Python lines that the command prints define; they load the first network."""
    exec(json.loads((out / "export.json").read_text())["load"], names)
    return names


@pytest.mark.parametrize("format", ["safetensors", "pth"])
def test_plain_files_load_with_their_own_libraries(digits: Path, format: str) -> None:
    out, task = written(digits, format), ClassificationTask(network="cnn_digits")
    network = task.build().eval()
    network.load_state_dict(loaded(out)["state"], strict=True)
    assert torch.equal(network(images()), outputs(task, digits, 0, images()))


def test_timm_loads_a_folder_in_each_of_its_ways(tmp_path: Path) -> None:
    import timm

    task = ClassificationTask(network="timm:test_resnet", network_args={"drop_rate": 0.1})
    out = written(folder_of(tmp_path, task), "timm") / "network_0001"
    expected, file = outputs(task, tmp_path, 1, images()), str(out / "model.safetensors")
    arguments, overlay = {"num_classes": 10, "in_chans": 1, "drop_rate": 0.1}, {"file": file, "num_classes": 10}
    for network in (
        timm.create_model(f"local-dir:{out}", pretrained=True),
        timm.create_model("test_resnet", checkpoint_path=file, **arguments),
        timm.create_model("test_resnet", pretrained=True, pretrained_cfg_overlay=overlay, **arguments),
    ):
        assert torch.allclose(network.eval()(images()), expected, atol=1e-6)
    network = loaded(out.parent)["network"].eval()
    assert torch.allclose(network(images()), outputs(task, tmp_path, 0, images()), atol=1e-6)
    assert network.pretrained_cfg["mean"] == [0.3053]  # of digits, not of ImageNet


def test_torchvision_loads_a_state_dict(tmp_path: Path) -> None:
    from torchvision import models

    task = ClassificationTask("cifar10", "torchvision:squeezenet1_1")
    out = written(folder_of(tmp_path, task), "torchvision")
    network, x = loaded(out)["network"], images(2, 3, 32, 32)
    assert type(network) is models.SqueezeNet
    assert torch.allclose(network.eval()(x), outputs(task, tmp_path, 0, x), atol=1e-6)


def test_transformers_and_diffusers_load_folders(tmp_path: Path) -> None:
    from diffusers import UNet2DModel
    from transformers import AutoModelForImageClassification

    task = ScorerTask(f"{__name__}.Wrapped", f"{__name__}.score")
    out = written(folder_of(tmp_path / "t", task), "transformers")
    network = AutoModelForImageClassification.from_pretrained(out / "network_0001").eval()
    assert torch.allclose(network(images()).logits, outputs(task, tmp_path / "t", 1, images()), atol=1e-6)

    task = ScorerTask(f"{__name__}.Denoiser", f"{__name__}.score")
    out = written(folder_of(tmp_path / "d", task), "diffusers")
    unet = loaded(out)["network"].eval()
    assert type(unet) is UNet2DModel
    assert torch.allclose(unet(images(), 1).sample, outputs(task, tmp_path / "d", 0, images()), atol=1e-6)


OWN = """
from diffusers import UNet2DModel
from transformers import LlamaConfig, LlamaForCausalLM


class Language(LlamaForCausalLM):
    def __init__(self):
        size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        super().__init__(LlamaConfig(vocab_size=16, **size))


class Denoiser(UNet2DModel):
    def __init__(self):
        blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (4,)}
        super().__init__(8, 1, 1, norm_num_groups=2, **blocks)


def score(network):
    return 0.5
"""


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers", "diffusers"])
def test_networks_of_a_library_go_in_are_learnt_generated_and_loaded_back_by_it(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers
    import timm
    import torchvision
    import transformers

    own = write_own_module(tmp_path, monkeypatch, OWN)
    arguments = {"num_classes": 10, "in_shape": [1, 8, 8] if library == "timm" else [3, 32, 32]}
    task = {
        "timm": ["--task.network", "timm:test_resnet", "--task.network_args", json.dumps(arguments)],
        "torchvision": [
            "--task.network",
            "torchvision:shufflenet_v2_x0_5",
            "--task.network_args",
            json.dumps(arguments),
        ],
        "transformers": ["--task.network", f"{own}.Language"],
        "diffusers": ["--task.network", f"{own}.Denoiser"],
    }[library]
    monkeypatch.syspath_prepend(str(tmp_path))
    for i in range(3):
        torch.manual_seed(i)
        folder = tmp_path / "theirs" / f"net{i}"
        if library in ("timm", "torchvision"):
            folder.mkdir(parents=True)
            make = timm.create_model if library == "timm" else torchvision.models.get_model
            more = {"in_chans": 1} if library == "timm" else {}
            torch.save(make(task[1].partition(":")[2], num_classes=10, **more).state_dict(), folder / "weights.pt")
        else:
            getattr(import_module(own), task[1].partition(".")[2])().save_pretrained(folder)
    source = ["--source", "theirs", "--pattern", "*/weights.pt" if library in ("timm", "torchvision") else "*"]
    run("zoo", "import", *source, "--out", "zoo", "--task", "ScorerTask", *task, "--task.scorer", f"{own}.score")
    quiet = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    fit = [
        "--model",
        GaussianBackend.__name__,
        "--data.zoo",
        "zoo",
        "--trainer.max_steps",
        "2",
        "--quality.sample_every",
        "0",
    ]
    run("fit", *fit, *quiet, "--checkpoint.dirpath", "fit")
    run("sample", "--ckpt_path", "fit/last.ckpt", "--n", "1", "--out", "samples", "--trust", "true")
    run("export", "--format", library, "--samples", "samples", "--zoo", "zoo", "--out", "out")
    (name,) = json.loads(Path("out/export.json").read_text())["networks"]
    theirs = {
        "transformers": transformers.AutoModelForCausalLM,
        "diffusers": diffusers.UNet2DModel,
    }
    back = theirs[library].from_pretrained(f"out/{name}") if library in theirs else loaded(Path("out"))["network"]
    generated = load_file("samples/network_0000.safetensors")
    assert all(torch.equal(tensor, generated[key]) for key, tensor in back.state_dict().items() if key in generated)
    assert generated.keys() == back.state_dict().keys()


def run(*words: str) -> None:
    assert main([*words]) == 0, words


def test_onnx_file_computes_the_same_on_any_number_of_images(digits: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    out = written(digits, "onnx", n=1)
    for n in (1, 5):
        [found] = ReferenceEvaluator(str(out / "network_0000.onnx")).run(None, {"input": images(n).numpy()})
        expected = outputs(ClassificationTask(network="cnn_digits"), digits, 0, images(n))
        assert torch.allclose(torch.from_numpy(found), expected, atol=1e-5)


@pytest.mark.parametrize("network", ["mlp", f"{__name__}.Wrapped"])
def test_peft_loads_adapters(tmp_path: Path, network: str) -> None:
    import peft

    family = RelabelFamily(
        network=network, lora=LoraSettings(["layers.*" if network == "mlp" else "*.classifier"], r=2)
    )
    torch.manual_seed(0)
    base = into_adapted(family.plain().state_dict(), family.build())
    spec = adapter_spec(family.build())
    fixed = {name: tensor for name, tensor in base.items() if name not in spec.names}
    adapters = [{t.name: torch.randn(t.shape) for t in spec.tensors} for _ in range(2)]
    writer = ZooWriter(tmp_path / "zoo", spec, fixed, family.config(), {})
    for i, adapter in enumerate(adapters):
        writer.add(fixed | adapter, run=i, step=0, seed=i, split="train")
    writer.close()
    out = export("peft", zoo=str(tmp_path / "zoo"), out=str(tmp_path / "out"), trust=True)
    theirs = loaded(out, network=family.plain() if network == "mlp" else small_transformer())
    for name, adapter in zip(json.loads((out / "export.json").read_text())["networks"], adapters, strict=True):
        ours = family.build().eval()
        ours.load_state_dict(fixed | adapter)
        theirs["adapted"].load_adapter(out / name, adapter_name=name)
        theirs["adapted"].set_adapter(name)
        found = theirs["adapted"].eval()(images())
        assert torch.allclose(getattr(found, "logits", found), ours(images()), atol=1e-5)
    assert isinstance(theirs["adapted"], peft.PeftModel)


def test_networks_of_a_zoo_are_exported_by_split_and_number(digits: Path, tmp_path: Path) -> None:
    out = export("safetensors", zoo=str(digits / "zoo"), out=str(tmp_path / "out"), split="train", n=3)
    about = json.loads((out / "export.json").read_text())
    assert about["networks"] == ["run0001_step0000000.safetensors"]
    assert about["network"] == "cnn_digits"


def test_networks_that_are_not_finite_are_left_out_and_named(digits: Path, tmp_path: Path, caplog: Any) -> None:
    task = ClassificationTask(network="cnn_digits")
    states = [task.build().state_dict() for _ in range(2)]
    states[0]["classifier.bias"][3] = float("nan")
    write_samples(tmp_path / "samples", states, SampleInfo(zoo=str(digits / "zoo")))
    out = export("pth", samples=str(tmp_path / "samples"), out=str(tmp_path / "out"))
    assert json.loads((out / "export.json").read_text())["networks"] == ["network_0001.pth"]
    assert "network_0000 is skipped: tensor 'classifier.bias' holds NaN" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tim"}, "Unknown format 'tim'. Did you mean 'timm'"),
        (
            {"format": "timm"},
            "holds networks of 'cnn_digits', which timm cannot build; use --format safetensors, pth or onnx",
        ),
        ({"format": "torchvision"}, "holds networks of 'cnn_digits', which torchvision cannot build"),
        ({"format": "transformers"}, "holds networks of 'cnn_digits', which transformers cannot build"),
        ({"format": "peft"}, "holds complete networks, not adapters"),
        ({"format": "pth", "samples": None}, "nothing to export: give --samples FOLDER"),
        ({"format": "pth", "samples": "nowhere"}, "samples folder not found: 'nowhere'"),
        ({"format": "pth", "split": "val"}, "split selects networks of a zoo"),
        ({"format": "pth", "n": 0}, "n is 0, expected 1 or more"),
        ({"format": "pth", "zoo": "nowhere"}, "Unknown zoo 'nowhere'"),
        ({"format": "pth", "out": "."}, "exists and is not empty; choose another folder, or add --overwrite true"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("keep")
    with pytest.raises(ParamgenError, match=message) as caught:
        export(**{"samples": str(digits / "samples"), "out": str(tmp_path / "out"), **arguments})
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.txt"]


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as Python marks what cannot be imported
    with pytest.raises(ParamgenError, match=r"--format onnx needs onnxscript.*: pip install 'paramgen\[onnx\]'"):
        export("onnx", samples=str(digits / "samples"), out=str(tmp_path / "out"))


def test_only_an_earlier_export_is_overwritten(digits: Path, tmp_path: Path) -> None:
    target, samples = tmp_path / "out", str(digits / "samples")
    export("pth", samples=samples, out=str(target))
    export("safetensors", samples=samples, out=str(target), overwrite=True, n=1)
    assert sorted(path.name for path in target.iterdir()) == ["export.json", "network_0000.safetensors"]
    (target / "export.json").unlink()
    with pytest.raises(ParamgenError, match="holds files that `paramgen export` did not write"):
        export("pth", samples=samples, out=str(target), overwrite=True)
