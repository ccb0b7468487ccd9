"""A small real zoo of digits networks for the tests of evaluation, and folders of samples of it."""

import json
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional as F

from paramgen.core.params import ParamSpec
from paramgen.core.sample_writer import write_samples
from paramgen.core.samples import SampleInfo, read_samples
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.evaluation.evaluate import evaluate
from paramgen.report.weights import weight_pictures
from paramgen.tasks import ClassificationTask, load_task

SEEN = {  # as a fit remembers it
    "train/loss": [[1, 1.0], [50, 0.3], [100, 0.01]],
    "sample/score_mean": [[50, 0.5], [100, 0.9]],
    "sample/dispersion": [[50, 0.2], [100, 1.1]],
}


@cache
def trained(network: str, arguments: str, seed: int, checkpoints: int = 1) -> list[dict[str, torch.Tensor]]:
    """A network trained for a moment, good enough that the figures mean something, kept after 60 steps and every 5 more."""
    task = ClassificationTask(network=network, network_args=json.loads(arguments))
    torch.manual_seed(seed)
    model = task.build().train()
    x, y = next(iter(task.data("train").batches(10_000)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    kept = []
    for step in range(60 + 5 * (checkpoints - 1)):
        chosen = torch.randint(len(x), (64,))
        loss = F.cross_entropy(model(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= 59 and (step - 59) % 5 == 0:
            kept.append({name: t.clone() for name, t in model.state_dict().items()})
    return kept


def make_zoo(
    path: Path, runs: int = 12, heldout: int = 4, network: str = "mlp", checkpoints: int = 1, **network_args: object
) -> Zoo:
    """So many checkpoints a run; the last runs are held out. With `runs` = 1, two checkpoints of one run at least."""
    task = ClassificationTask(network=network, network_args=dict(network_args))
    kept, arguments = max(checkpoints, 2 if runs == 1 else 1), json.dumps(network_args)
    trainings = [(r, 5 * c, state) for r in range(runs) for c, state in enumerate(trained(network, arguments, r, kept))]
    spec = ParamSpec.of(trainings[0][2])
    base = {name: t for name, t in trainings[0][2].items() if name not in spec.names}
    writer = ZooWriter(path, spec, base, task.config(), {"made": "by a test"})
    for run, step, state in trainings:
        writer.add(
            state, run=run, step=step, seed=run, split="heldout" if runs > 1 and run >= runs - heldout else "train"
        )
    return writer.close(seconds=1.0)


def folder_of(
    zoo: Zoo, weights: torch.Tensor, path: Path, trajectory: torch.Tensor | None = None, **info: object
) -> Path:
    """Write rows of (N, P) as samples."""
    states = [zoo.complete(zoo.spec.unflatten(row)) for row in weights]
    return write_samples(path, states, SampleInfo(generator="test", **info), trajectory=trajectory)  # type: ignore[arg-type]


def way_to(weights: torch.Tensor) -> torch.Tensor:
    """(3, 2, P): the first two networks from noise, half-way, and there."""
    return torch.lerp(torch.randn(2, weights.shape[1]), weights[:2], torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1))


def measured_results(folder: Path) -> dict:
    """``results.json`` of a zoo with two sets of samples: one collapsed, whose name is markup, and one of copies."""
    zoo = make_zoo(folder / "zoo", runs=8, heldout=3, hidden=[12])
    W = zoo.matrix(zoo.indices("train"))
    samples = [
        read_samples(
            folder_of(zoo, weights, folder / name, way_to(weights), history=SEEN, fit_command="paramgen fit"), zoo
        )
        for name, weights in (("mean<b>", W.mean(0) + 0.1 * (W[:4] - W.mean(0))), ("copies", W[:4]))
    ]
    found = evaluate(zoo, load_task(zoo.task_config), samples, n=4).to_dict()
    return {
        **found,
        "command": "paramgen evaluate --zoo zoo --samples 'mean<b>'",
        "weights": weight_pictures(zoo, samples),
    }
