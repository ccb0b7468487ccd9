"""Two processes learn what one process learns from the same global batch; so do two that hold a part of each weight."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conftest import write_fit, write_zoo
from every_backend import cases
from paramgen.cli.main import main
from paramgen.core import seeds
from paramgen.core.io import read_tensors
from paramgen.generators.loading import load_generator
from paramgen.generators.restore import read_checkpoint
from two_processes import BATCH, RICH, SEED, SHARDED, STEPS, fit, fit_rich

ALONE = {"batch_size": 2 * BATCH, "devices": 1}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    zoo = write_zoo(folder / "networks", networks=24)
    write_fit(folder, max_steps=30)
    index = folder / "zoo" / "zoo.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"task": None}))  # samples are measured without scores
    fit_rich(str(zoo.path), folder / "rich", wrap=in_halves, save=folder / "rich.ckpt", **ALONE)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = Path(__file__).parent / "two_processes.py"
    done = subprocess.run(
        [sys.executable, script, zoo.path, folder], capture_output=True, text=True, env=environment, timeout=900
    )
    return zoo, folder, done


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


def check_equal(alone: Path, together: Path, rel: float = 1e-4) -> None:
    """One process has had the mean of the losses of two, and ends with their weights."""
    one = json.loads(alone.with_suffix(".0.json").read_text())
    ranks = [json.loads(together.with_suffix(f".{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["losses"] != ranks[1]["losses"]
    assert ranks[0]["noise"] != ranks[1]["noise"]
    assert ranks[0]["weights"] == pytest.approx(ranks[1]["weights"], rel=1e-6)
    mean = [(a + b) / 2 for a, b in zip(ranks[0]["losses"], ranks[1]["losses"], strict=True)]
    assert mean == pytest.approx(one["losses"], rel=rel)
    assert ranks[0]["weights"] == pytest.approx(one["weights"], rel=rel)


@pytest.mark.parametrize("name", cases())
def test_losses_of_two_ranks_equal_one_process_with_the_same_global_batch(name, two_processes, tmp_path):
    zoo, folder, done = two_processes
    assert (folder / f"{name}.0.json").exists(), done.stderr[-3000:]
    fit(name, str(zoo.path), tmp_path / name, wrap=in_halves, **ALONE)
    check_equal(tmp_path / name, folder / name)
    if name in SHARDED:
        check_equal(tmp_path / name, folder / f"sharded_{name}")
        held = [json.loads((folder / f"sharded_{name}.{rank}.json").read_text())["held"] for rank in (0, 1)]
        assert max(held) < 0.7
        assert sum(held) == pytest.approx(1)


def test_a_sharded_fit_in_bf16_equals_one_process(two_processes, tmp_path):
    zoo, folder, _ = two_processes
    fit(RICH, str(zoo.path), tmp_path / "bf16", wrap=in_halves, precision="bf16-mixed", **ALONE)
    check_equal(tmp_path / "bf16", folder / "sharded_bf16", rel=2e-2)


def test_all_processes_are_told_that_a_sharded_checkpoint_cannot_be_written(two_processes):
    _, folder, _ = two_processes
    first, second = ((folder / f"rich.{rank}.error").read_text() for rank in (0, 1))
    assert first == second
    assert "no.ckpt" in first


def test_a_sharded_checkpoint_holds_what_the_file_of_one_process_holds(two_processes, tmp_path, capsys):
    """Averaged weights, the weights themselves, the optimizer's state, the codec."""
    _, folder, _ = two_processes
    check_equal(folder / "rich", folder / "sharded_rich")
    assert (
        main(["consolidate", "--ckpt_path", str(folder / "sharded_rich.ckpt"), "--out", str(tmp_path / "x.ckpt")]) == 0
    )
    one, two, file = map(read_checkpoint, (folder / "rich.ckpt", folder / "sharded_rich.ckpt", tmp_path / "x.ckpt"))
    assert one.keys() == two.keys() == file.keys()
    assert one["global_step"] == two["global_step"] == STEPS
    for part in ("state_dict", "current_model_state", "averaging_state"):
        torch.testing.assert_close(file[part], two[part], rtol=0, atol=0)
        here, there = (
            {n: t for n, t in c[part].items() if "running" not in n and "num_batches" not in n}  # of the first process
            for c in (one, two)
        )
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-5)
    moments, expected = (c["optimizer_states"][0]["state"] for c in (two, one))
    torch.testing.assert_close(moments, expected, rtol=1e-3, atol=1e-8)
    assert any(not torch.equal(w, two["current_model_state"][n]) for n, w in two["state_dict"].items())
    for statistic in ("shift", "scale"):
        assert torch.equal(two["paramgen"]["codec"][statistic], one["paramgen"]["codec"][statistic])


def test_a_generator_draws_the_same_from_a_folder_of_shards_and_from_its_file(two_processes, tmp_path):
    _, folder, _ = two_processes
    assert (
        main(["consolidate", "--ckpt_path", str(folder / "sharded_rich.ckpt"), "--out", str(tmp_path / "x.ckpt")]) == 0
    )
    for name, path in (("a", folder / "sharded_rich.ckpt"), ("b", tmp_path / "x.ckpt")):
        assert main(["sample", "--ckpt_path", str(path), "--n", "2", "--out", str(tmp_path / name)]) == 0
    drawn = [[read_tensors(file) for file in sorted((tmp_path / name).glob("*.safetensors"))] for name in "ab"]
    assert len(drawn[0]) == 2
    torch.testing.assert_close(*drawn, rtol=0, atol=0)


def test_a_fit_goes_on_with_another_number_of_processes(two_processes, tmp_path):
    """Two from the file of one, and one from the folder of two."""
    zoo, folder, _ = two_processes
    more = {"wrap": in_halves, "steps": 2 * STEPS, "ckpt_path": folder / "sharded_rich.ckpt", **ALONE}
    fit_rich(str(zoo.path), tmp_path / "resumed", **more)
    check_equal(tmp_path / "resumed", folder / "sharded_resumed", rel=1e-3)


def test_the_loss_of_a_process_ends_a_sharded_fit_with_one_line(two_processes):
    _, folder, done = two_processes
    lines = [line for line in done.stderr.splitlines() if line.startswith("paramgen: ")]
    assert done.returncode == 2, done.stderr[-3000:]
    assert len(lines) == 1
    assert "another process of this fit ended unexpectedly" in lines[0]
    assert (folder / "fit" / "last.ckpt").samefile(folder / "fit" / "epoch=0-step=10.ckpt")
    assert "sample/nn_ratio" in next((folder / "logs").rglob("metrics.csv")).read_text()


def test_the_command_line_checks_and_takes_a_folder_of_shards_like_a_file(two_processes, capsys):
    _, folder, _ = two_processes
    more = ["fit", "--config", str(folder / "config.yaml"), "--ckpt_path", "last"]
    assert main([*more, "--model.lr", "0.5"]) == 2
    assert "model.lr is 0.5 here and 0.05 in the checkpoint" in capsys.readouterr().err
    last = folder / "fit" / "last.ckpt"
    before = load_generator(last).fit_seconds
    assert main([*more, "--trainer.max_steps", "20"]) == 0
    assert last.samefile(folder / "fit" / "epoch=1-step=20.ckpt")
    assert load_generator(last).fit_seconds > before > 0


@pytest.mark.parametrize("lost", ["meta.pt", "shard-00002-model-00001-of-00001.safetensors"])
def test_a_folder_of_shards_with_a_missing_file_is_refused(lost, two_processes, tmp_path, capsys):
    source = two_processes[1] / "sharded_rich.ckpt"
    (tmp_path / "x.ckpt").mkdir()
    for file in source.iterdir():
        if file.name != lost:
            os.link(file, tmp_path / "x.ckpt" / file.name)
    assert main(["sample", "--ckpt_path", str(tmp_path / "x.ckpt"), "--out", str(tmp_path / "out")]) == 2
    assert lost in capsys.readouterr().err


def test_sharding_needs_several_processes(tmp_path, capsys):
    assert main([*write_fit(tmp_path, max_steps=20), "--trainer.strategy", "fsdp2", "--trainer.devices", "1"]) == 2
    assert "trainer.strategy fsdp2 shards a generator over several processes" in capsys.readouterr().err
