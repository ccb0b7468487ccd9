"""Fits that torchrun and SLURM start: the variables that they set, read by Lightning with the configs of configs/trainer/."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

from conftest import write_zoo
from paramgen.core.paths import find_config

JOB = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "fit", "MASTER_PORT": "29641"}
PARAMGEN = [sys.executable, "-m", "paramgen"]


def fit(folder: Path, preset: str) -> list[str]:
    """The command line of a short fit of RPG into FOLDER/fit, on two CPU processes."""
    zoo = write_zoo(folder / "zoo", networks=9)
    configs = ["--config", "rpg_digits_mlp", "--config", f"trainer/{preset}"]
    steps = ["--trainer.max_steps", "4", "--quality.sample_every", "0", "--checkpoint.dirpath", str(folder / "fit")]
    devices = ["--trainer.accelerator", "cpu", "--trainer.devices", "2"]  # after the preset, which asks for GPUs
    return ["fit", *configs, "--data.zoo", str(zoo.path), *steps, *devices]


def task(number: int, nodes: int, each: int, names: str) -> dict[str, str]:
    """What srun sets for one of nodes x each tasks."""
    node, place = divmod(number, each)
    found = {"PROCID": number, "LOCALID": place, "NODEID": node, "NNODES": nodes, "NTASKS": nodes * each}
    found |= {"NTASKS_PER_NODE": each, "NODELIST": names, "JOB_NODELIST": names}
    return JOB | {f"SLURM_{name}": str(value) for name, value in found.items()}


def test_the_slurm_config_takes_its_ranks_from_srun(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)  # Lightning sets it in this process when it starts others
    for name, value in task(3, nodes=2, each=2, names="node[07-08]").items():
        monkeypatch.setenv(name, value)
    preset = yaml.safe_load(Path(find_config("trainer/slurm")).read_text())["trainer"]
    strategy = Trainer(**{**preset, "accelerator": "cpu", "devices": 2, "num_nodes": 2}, logger=False).strategy
    environment = strategy.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert (strategy.world_size, strategy.global_rank, strategy.local_rank, strategy.node_rank) == (4, 3, 1, 1)
    assert (environment.main_address, environment.main_port) == ("node07", 29641)


@pytest.mark.slow
def test_tasks_of_srun_are_one_fit(tmp_path):
    """As ``sbatch`` and ``srun`` would start them, without a scheduler."""
    command = [*PARAMGEN, *fit(tmp_path, "slurm")]
    tasks = [
        subprocess.Popen(command, env=os.environ | task(i, 1, 2, "localhost"), stdout=-1, stderr=-1, text=True)
        for i in range(2)
    ]
    said = [process.communicate(timeout=300) for process in tasks]
    assert [process.returncode for process in tasks] == [0, 0], said
    assert (tmp_path / "fit" / "last.ckpt").exists()
    assert "All distributed processes registered. Starting with 2 processes" in said[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["ddp", "fsdp"])
def test_torchrun_starts_one_fit(preset, tmp_path):
    """The command of docs/scaling.md on one machine."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2"]
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--no-python"]
    command = [*torchrun, *rendezvous, *PARAMGEN, *fit(tmp_path, preset)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "fit" / "last.ckpt").exists()
    assert "Starting with 2 processes" in done.stderr
