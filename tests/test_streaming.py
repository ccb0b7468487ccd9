"""Networks on disk are read a tensor at a time: peak memory is below one network, for any number of networks.

Import with a task alone holds one network for a moment, the task's own. Pickles of the format before torch 1.6 are read whole.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from paramgen.collect.importing import import_
from paramgen.core.codec import TokenCodec
from paramgen.core.params import ParamSpec
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.generators.data import ParameterDataModule

PEAK, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
TENSORS, NUMEL = 24, 1 << 18
NETWORK = TENSORS * NUMEL * 4  # bytes: 25 MB

pytestmark = pytest.mark.skipif(not RESET.exists(), reason="Linux counts the peak")


def write_zoo(path, numel):
    states = [{f"{i}.weight": torch.randn(numel) for i in range(TENSORS)} for _ in range(2)]
    writer = ZooWriter(path, ParamSpec.of(states[0]), {}, None, {})
    for step, state in enumerate(states):
        writer.add(state, run=0, step=step, seed=0)
    writer.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streaming")
    write_zoo(folder / "small", 8)
    write_zoo(folder / "zoo", NUMEL)
    for name in ("small", "zoo"):
        write_pickles(folder / f"{name}_pickles", Zoo(folder / name))
    return folder


def write_pickles(path, zoo):
    """As a training program saves them: with the optimizer's state, and the prefix of a wrapper."""
    path.mkdir()
    for i, state in enumerate(zoo):
        moments = {"state": {j: {"exp_avg": tensor + 1} for j, tensor in enumerate(state.values())}}
        model = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": i, "model": model, "optimizer": moments}, path / f"epoch{i}.pth")


def memory(field):
    return next(int(line.split()[1]) << 10 for line in PEAK.read_text().splitlines() if line.startswith(field))


def verify(zoo):
    assert Zoo(zoo).verify() == []


def bind(zoo):
    ParameterDataModule(str(zoo), TokenCodec(4096), residency="disk").setup("fit")


def read_in_part(zoo):
    data = ParameterDataModule(str(zoo), TokenCodec(4096), batch_size=2, residency="disk", tokens_per_step=4)
    data.setup("fit")
    next(iter(data.train_dataloader()))


def import_again(zoo):
    import_(str(zoo), str(zoo.with_name(f"{zoo.name}_again")))


def import_pickles(zoo):
    import_again(zoo.with_name(f"{zoo.name}_pickles"))


@pytest.mark.parametrize("work", [verify, bind, read_in_part, import_again, import_pickles])
def test_memory_does_not_grow_with_the_size_of_the_zoo(work, folder):
    work(folder / "small")  # what is imported and allocated once
    RESET.write_text("5")  # the peak becomes what is in use now
    before = memory("VmRSS")
    work(folder / "zoo")
    assert memory("VmHWM") - before < NETWORK


def test_zoo_commands_import_neither_lightning_nor_scipy():
    """They take 300 MB and 41 MB: half of what import and verify need at the size of ViT-Base."""
    code = "import sys, paramgen.cli.commands.zoo; sys.exit(bool({'lightning', 'scipy'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
