"""Zoos that no figure can be had of are evaluated to the end, and a sentence says why the figures mean nothing."""

import json
from dataclasses import replace

import pytest
import torch

from paramgen.cli.main import main
from paramgen.core.params import ParamSpec
from paramgen.core.zoo_writer import ZooWriter
from paramgen.evaluation.baselines import shown_in
from paramgen.evaluation.pool import Pool
from paramgen.evaluation.weight_baselines import FROM_WEIGHTS
from paramgen.tasks import ClassificationTask

ZOOS = {
    "all equal": lambda shape, run, noise: torch.full(shape, 0.1),
    "all zero": lambda shape, run, noise: torch.zeros(shape),
    "all 1e30": lambda shape, run, noise: torch.full(shape, 1e30),
    "1e30 and -1e30": lambda shape, run, noise: torch.full(shape, 1e30 if run % 2 else -1e30),
    "about 1e30": lambda shape, run, noise: 1e30 * torch.randn(shape, generator=noise),
    "about 1e-30": lambda shape, run, noise: 1e-30 * torch.randn(shape, generator=noise),
}

SAID = {
    "all equal": "All training networks are equal",
    "all zero": "All training networks are equal",
    "all 1e30": "Weights of the zoo reach 1.0e+30",
    "1e30 and -1e30": "Weights of the zoo reach 1.0e+30",
    "about 1e30": "Weights of the zoo reach",
    "about 1e-30": "No weight of the zoo is larger than",
}


def degenerate(path, kind, network="mlp", **network_args):
    """Ten networks of one kind, the last two held out."""
    task = ClassificationTask(network=network, network_args=network_args)
    plain = task.build().state_dict()
    spec, noise = ParamSpec.of(plain), torch.Generator().manual_seed(0)
    base = {name: tensor for name, tensor in plain.items() if name not in spec.names}
    writer = ZooWriter(path, spec, base, task.config(), {"made": "by a test"})
    for run in range(10):
        state = {
            t.name: ZOOS[kind](t.shape, run, noise).abs()
            if t.kind == "running_var"
            else ZOOS[kind](t.shape, run, noise)
            for t in spec.tensors
        }
        writer.add(state, run=run, step=0, seed=run, split="heldout" if run > 7 else "train")
    return writer.close()


@pytest.mark.parametrize("kind", ZOOS)
def test_every_baseline_of_a_degenerate_zoo_is_measured(kind, tmp_path):
    zoo = degenerate(tmp_path / "zoo", kind, hidden=[4])
    command = ["evaluate", "--zoo", str(zoo.path), "--n", "6", "--out", str(tmp_path / "out"), "--aligned", "true"]
    assert main(command) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)
    rows = {row["name"]: row for row in results["rows"]}
    assert {"zoo", "held-out runs", *shown_in("one_task")} <= set(rows)
    assert [flag for row in rows.values() for flag in row["flags"] if flag["kind"] == "failed"] == []
    assert (tmp_path / "out" / "report.html").exists()
    assert any(SAID[kind] in note for note in results["notes"])


def test_baselines_draw_alike_whatever_the_scale_of_the_weights():
    pool = Pool(torch.randn(8, 20, generator=torch.Generator().manual_seed(0)), torch.rand(8), (20,))
    for name, baseline in FROM_WEIGHTS.items():
        drawn = [
            baseline.draw(replace(pool, weights=scale * pool.weights), 6, torch.Generator().manual_seed(1)) / scale
            for scale in (1.0, 1e30, 1e-30)
        ]
        assert drawn[0].isfinite().all(), name
        for other in drawn[1:]:  # components may come with either sign
            assert torch.allclose(other.std(), drawn[0].std(), rtol=0.3), name
