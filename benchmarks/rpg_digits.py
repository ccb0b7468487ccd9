"""RPG on digits: checkpoints of one run (MLP, CNN), and Table 15's experiment, seeds with and without permutation state.

    OMP_NUM_THREADS=1 python benchmarks/rpg_digits.py --out rpg_digits.json

CPU seconds of one thread. Each trial makes its own zoo (another seed), fits a shipped config with the trainer, samples 100 networks with
the config's 10 DDIM steps and tests them. `run_match` is the share of samples whose nearest training network is of the run whose state
they were drawn with, `id_match` the same for the very checkpoint (states of checkpoints alone); both say that samples reproduce what
their state stands for.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer, seed_everything

from paramgen.backends.rpg import RPG
from paramgen.collect.single import main as collect
from paramgen.collect.train import OptimSettings
from paramgen.core import distances
from paramgen.core.codec import TokenCodec
from paramgen.core.paths import find_config
from paramgen.core.zoo import Zoo
from paramgen.evaluation import metrics
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.sampling import SampleRequest
from paramgen.tasks import ClassificationTask
from paramgen.tasks.score import CLASSIFIES
from paramgen.tasks.scoring import score_networks

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "enable_checkpointing": False}


def trajectory(folder: Path, network: str, seed: int) -> Zoo:
    """100 checkpoints of one run, fine-tuned at a rate that spreads them."""
    task = ClassificationTask("digits", network)
    collect(task, str(folder), checkpoints=100, save_every=2, finetune=OptimSettings(lr=4e-3), seed=seed)
    return Zoo(folder)


def seeds(folder: Path, runs: int, seed: int) -> Zoo:
    """The last 10 checkpoints of each of `runs` independent runs."""
    task = ClassificationTask("digits", "mlp")
    collect(task, str(folder), mode="seeds", runs=runs, checkpoints=10, save_every=2, epochs=20, seed=seed)
    return Zoo(folder)


def fit(zoo: Zoo, config: str, seed: int, **arguments: Any) -> tuple[RPG, ParameterDataModule]:
    """A shipped config on this zoo, some arguments of the model replaced."""
    settings = yaml.safe_load(Path(find_config(config)).read_text())
    seed_everything(seed, verbose=False)
    codec = TokenCodec(**settings["data"].pop("codec")["init_args"])
    data = ParameterDataModule(**{**settings["data"], "zoo": str(zoo.path), "codec": codec})
    model = RPG(
        data.seq_len,
        data.token_dim,
        data.num_networks,
        data.num_runs,
        **{**settings["model"]["init_args"], **arguments},
    )
    Trainer(max_epochs=-1, **{**settings["trainer"], **QUIET}).fit(model, data)
    return model, data


def trial(zoo: Zoo, config: str, seed: int, n: int = 100, **arguments: Any) -> dict[str, Any]:
    """Fit, sample, test; accuracies in percent."""
    start = time.process_time()
    model, data = fit(zoo, config, seed, **arguments)
    fitted = time.process_time()
    drawn = model.draw(SampleRequest(n))
    networks = model.decode(drawn.tokens)
    sampled = time.process_time()
    trained, weights = zoo.matrix(data.train_indices), zoo.spec.flatten_many(networks)
    accuracy = accuracies(zoo, networks)
    near = distances.nearest(weights, trained)
    runs = torch.unique(torch.tensor([zoo.entries[i].run for i in data.train_indices]), return_inverse=True)[1]
    identity, run = drawn.identity, drawn.run
    if identity is not None:
        run = runs[torch.tensor(identity)].tolist()
    return {
        "zoo_mean": 100 * accuracies(zoo, [zoo.full(i) for i in data.train_indices]).mean().item(),
        "mean": 100 * accuracy.mean().item(),
        "min": 100 * accuracy.min().item(),
        "std": 100 * accuracy.std().item(),
        "dispersion": metrics.dispersion(weights, trained),
        "nn_ratio": metrics.nn_ratio(near.distance, metrics.tau(trained)),
        "id_match": None if identity is None else metrics.id_match(near.index, torch.tensor(identity)),
        "run_match": None if run is None else metrics.id_match(runs[near.index], torch.tensor(run)),
        "fit_cpu_seconds": fitted - start,
        "sample_cpu_seconds": sampled - fitted,
        "networks": n,
        "generator_params": sum(p.numel() for p in model.parameters()),
    }


def accuracies(zoo: Zoo, networks: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Test accuracy of complete networks (N,)."""
    task = ClassificationTask(**zoo.task_config["init_args"])
    return score_networks(CLASSIFIES, task.build(), networks, task.data("test")).value


def show(name: str, rows: list[dict[str, Any]]) -> None:
    """One line: means over trials, the worst accuracy gap, the spread of dispersions."""
    mean = {k: statistics.mean(r[k] for r in rows) for k in rows[0] if all(r[k] is not None for r in rows)}
    gap = min(r["mean"] - r["zoo_mean"] for r in rows)
    spread = f"{min(r['dispersion'] for r in rows):.2f}-{max(r['dispersion'] for r in rows):.2f}"
    matches = ", ".join(f"{k} {mean[k]:.2f}" for k in ("id_match", "run_match") if k in mean)
    print(
        f"{name:34s} zoo {mean['zoo_mean']:.2f}  generated {mean['mean']:.2f} (worst gap {gap:+.2f})  dispersion {spread}  "
        f"nn_ratio {mean['nn_ratio']:.2f}  fit {mean['fit_cpu_seconds']:.1f} s  {rows[0]['networks']} sampled in "
        f"{mean['sample_cpu_seconds']:.2f} s  {matches}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--only", choices=["trajectory", "seeds"])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 3, 10, 20], help="seeds of a zoo")
    parser.add_argument("--state", nargs="+", choices=["run", "none"], default=["run", "none"])
    parser.add_argument("--out", type=Path, default=Path("rpg_digits.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for network in ("mlp", "cnn_digits") if args.only != "seeds" else ():
            config = "rpg_digits_mlp" if network == "mlp" else "rpg_digits_cnn"
            zoos = [trajectory(Path(scratch, f"{network}{s}"), network, s) for s in range(args.trials)]
            rows = results[f"trajectory {network}"] = [trial(zoo, config, s) for s, zoo in enumerate(zoos)]
            show(f"trajectory {network}", rows)
        for runs in args.runs if args.only != "trajectory" else ():
            zoos = [seeds(Path(scratch, f"seeds{runs}_{s}"), runs, s) for s in range(args.trials)]
            for state in args.state:
                name = f"{runs} seeds, {'with' if state == 'run' else 'without'} state"
                rows = results[name] = [
                    trial(zoo, "rpg_digits_seeds", s, state={"kind": state, "embedding": "normal"})
                    for s, zoo in enumerate(zoos)
                ]
                show(name, rows)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
