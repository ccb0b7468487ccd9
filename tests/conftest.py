"""What many tests share: small real zoos, made once a session."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # the local Hub of the tests has the older protocol
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "60")  # on a busy machine the local Hub answers late
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "60")

import random
import sys
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from paramgen.core.params import ParamSpec
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter

NUMBERS = count()

torch.set_num_threads(1)
torch.set_flush_denormal(True)


def seed_from(name: str) -> None:
    """Seed every global generator, so that a test draws the same numbers alone, in any order and in any process."""
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # libraries draw from it
    torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    seed_from(request.node.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> None:
    """A fixture that many tests share is made before `seeded`, by whichever test comes first."""
    if fixturedef.scope != "function":
        seed_from(fixturedef.argname)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what paramgen remembers of this user's zoos, so that no test reads or writes the real one."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


class TinyNet(nn.Module):
    """A network with everything that is hard: batch norm, a scalar, a one-element tensor, tied weights, an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.gain = nn.Parameter(torch.ones(1))
        self.out = nn.Linear(4, 3)
        self.out.weight = self.linear.weight
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x)) * self.scale * self.gain + self.out(x)


def vary(module: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """A state dict of the module's shapes, the same for the same seed: variances positive, integers as they are, ties kept."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}
    first: dict[int, str] = {}
    for name, tensor in module.state_dict().items():
        tied = first.setdefault(tensor.data_ptr(), name)
        if tied != name:
            state[name] = state[tied]
        elif tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            state[name] = (noise.abs() + 1e-3 if name.endswith("running_var") else noise).to(tensor.dtype)
        else:
            state[name] = tensor
    return state


def write_zoo(path: Path, networks: int = 6, runs: int = 3, task: dict | None = None) -> Zoo:
    """A zoo of varied TinyNets: the last run is held out, the one before it is for validation."""
    model = TinyNet()
    spec = ParamSpec.of(model)
    writer = ZooWriter(
        path, spec, {"steps": torch.tensor(7)}, task or {"class_path": "none", "init_args": {}}, {"made": "by a test"}
    )
    for i in range(networks):
        run = i % runs
        split = "heldout" if run == runs - 1 and runs > 2 else "val" if run == runs - 2 and runs > 2 else "train"
        writer.add(vary(model, i), run=run, step=i, seed=i, split=split)
    return writer.close()


def write_fit(folder: Path, max_steps: int) -> list[str]:
    """The command line of a fit that saves every 10 steps into ``folder/fit``, for a zoo that is made here."""
    zoo = write_zoo(folder / "zoo", networks=9)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    config = {
        "trainer": {"max_steps": max_steps, **quiet},
        "model": {"class_path": "GaussianBackend", "init_args": {"lr": 0.05}},
        "data": {"zoo": str(zoo.path), "batch_size": 3, "steps_per_epoch": 10},
        "checkpoint": {"dirpath": str(folder / "fit")},
        "quality": {"sample_every": 0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return ["fit", "--config", str(folder / "config.yaml")]


def write_own_module(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> str:
    """The name of a module of the user's in the working folder, which is not on Python's path."""
    name = f"own{next(NUMBERS)}"  # every test has its own: a class once imported stays known
    (folder / f"{name}.py").write_text(source)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p).resolve() != folder])
    monkeypatch.setattr(sys, "argv", ["paramgen"])
    return name


@pytest.fixture
def tiny_zoo(tmp_path: Path) -> Zoo:
    return write_zoo(tmp_path / "zoo", networks=9)


@pytest.fixture
def no_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files in the right format do not have the originals' md5."""
    import torchvision

    for module in ("utils", "cifar", "mnist", "stl10"):
        there = lambda path, md5=None: os.path.isfile(path)  # noqa: E731
        monkeypatch.setattr(getattr(torchvision.datasets, module), "check_integrity", there)
