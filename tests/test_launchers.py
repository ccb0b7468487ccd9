"""Fits that torchrun and SLURM start: the variables that they set, read by Lightning with the configs of configs/trainer/."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

from conftest import write_zoo
from paramgen.core.paths import find_config
from paramgen.generators.restore import read_checkpoint

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


SRUN = """#!{python}
# Stands for srun: starts the two tasks of a fit, as `fit` above gives it, with the folder and the checkpoint of the job script.
import json, os, signal, subprocess, sys, time
from pathlib import Path
given = sys.argv[sys.argv.index("--checkpoint.dirpath"):]
folder, resumed = Path(given[1]), "--ckpt_path" in given
tasks = [subprocess.Popen([*{command}, *given], env=os.environ | task) for task in {tasks}]
while not resumed and not (folder / "last.ckpt").exists() and tasks[0].poll() is None:
    time.sleep(0.1)
for task in () if resumed else tasks:
    task.send_signal(signal.SIGUSR1)  # the time of the job is nearly up
codes = [task.wait() for task in tasks]
sys.exit(max(codes))
"""


def job_script() -> str:
    """The script that docs/scaling.md gives to ``sbatch``."""
    page = (Path(__file__).parent.parent / "docs" / "scaling.md").read_text()
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", page, re.DOTALL)
    return script


def run_job(folder: Path, srun: str) -> subprocess.CompletedProcess[str]:
    """Run the job script in a folder with stand-ins for SLURM's commands; ``scontrol`` notes what it is asked."""
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    for name, text in (("srun", srun), ("scontrol", '#!/bin/bash\necho "$*" >> requeued\n')):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (folder / "fit.sh").write_text(job_script())
    environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}", "SLURM_JOB_ID": "4242", "SLURM_NNODES": "2"}
    command = ["bash", "fit.sh"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_job_script_requeues_a_fit_that_was_stopped_and_goes_on_with_it(tmp_path):
    """Stopped, requeued and ended; a fit that fails is not requeued."""
    (tmp_path / "fit.sh").write_text(job_script())
    subprocess.run(["bash", "-n", "fit.sh"], cwd=tmp_path, check=True)
    first, after = tmp_path / "fits" / "rpg_vit_base" / "last.ckpt", tmp_path / "requeued"
    for code in (138, 0, 1):
        done = run_job(tmp_path, f'#!/bin/bash\necho "$*"\nexit {code}\n')
        assert done.returncode == code
        assert ("--trainer.num_nodes 2" in done.stdout, "--ckpt_path" in done.stdout) == (True, first.exists())
        assert after.read_text() == "requeue 4242\n"
        first.parent.mkdir(parents=True, exist_ok=True)
        first.touch()


@pytest.mark.slow
def test_a_job_that_slurm_stops_saves_is_requeued_and_ends(tmp_path):
    """SIGUSR1 to both tasks after the first checkpoint."""
    steps = ["--trainer.max_steps", "60", "--checkpoint.every_n_train_steps", "2"]
    command = [*PARAMGEN, *fit(tmp_path, "slurm"), *steps]
    srun = SRUN.format(python=sys.executable, command=command, tasks=[task(i, 1, 2, "localhost") for i in range(2)])
    run_job(tmp_path, srun)
    folder = tmp_path / "fits" / "rpg_vit_base"
    stopped = read_checkpoint(folder / "last.ckpt")["global_step"]
    assert 2 <= stopped < 60
    assert (tmp_path / "requeued").read_text() == "requeue 4242\n"
    done = run_job(tmp_path, srun)
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(folder / "last.ckpt")["global_step"] == 60
    assert (tmp_path / "requeued").read_text() == "requeue 4242\n"


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
