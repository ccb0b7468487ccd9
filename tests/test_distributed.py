"""Two processes learn what one process learns from the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import write_zoo
from every_backend import cases
from paramgen.core import seeds
from two_processes import BATCH, SEED, fit


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    zoo = write_zoo(folder / "zoo", networks=24)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = Path(__file__).parent / "two_processes.py"
    done = subprocess.run(
        [sys.executable, script, zoo.path, folder], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return zoo, folder


def in_halves(model):
    """The model, with each batch in two halves, each half with the noise of its own process: what two processes do, in one."""
    states = [seeds.generator(SEED, rank).get_state() for rank in (0, 1)]
    whole = model.training_step

    def training_step(batch, batch_idx):
        losses = []
        for rank in (0, 1):
            half = slice(rank * BATCH, (rank + 1) * BATCH)
            torch.set_rng_state(states[rank])
            losses.append(
                whole(batch._replace(x=batch.x[half], index=batch.index[half], run=batch.run[half]), batch_idx)
            )
            states[rank] = torch.get_rng_state()
        return torch.stack(losses).mean()

    model.training_step = training_step
    return model


@pytest.mark.parametrize("name", cases())
def test_losses_of_two_ranks_equal_one_process_with_the_same_global_batch(name, two_processes, tmp_path):
    zoo, folder = two_processes
    fit(name, str(zoo.path), tmp_path, wrap=in_halves, batch_size=2 * BATCH, devices=1)
    alone = json.loads((tmp_path / f"{name}.0.json").read_text())
    ranks = [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["losses"] != ranks[1]["losses"]
    assert ranks[0]["noise"] != ranks[1]["noise"]
    assert ranks[0]["weights"] == pytest.approx(ranks[1]["weights"], rel=1e-6)
    mean = [(a + b) / 2 for a, b in zip(ranks[0]["losses"], ranks[1]["losses"], strict=True)]
    assert mean == pytest.approx(alone["losses"], rel=1e-4)
    assert ranks[0]["weights"] == pytest.approx(alone["weights"], rel=1e-4)
