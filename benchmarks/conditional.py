"""Weights for unseen tasks from their conditions: generators beside direct training, retrieval, averaging, ridge and votes.

    OMP_NUM_THREADS=1 python benchmarks/conditional.py relabel --zoos 3 --work runs/conditional
    OMP_NUM_THREADS=1 python benchmarks/conditional.py rotations --start random same converged --work runs/conditional
    OMP_NUM_THREADS=1 python benchmarks/conditional.py domains --data.root PACS --work runs/conditional

Zoos are collected into the work folder once, and found there again. Accuracies are of unseen tasks' test images, mean over tasks and
samples (`worst`: of the tasks), then over zoos. `direct` is trained on the unseen task itself; `start` are the adapters that all tasks
started from. Rows with a star have run generated networks on train images of seen tasks.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from paramgen.backends.pdiff import PDiff
from paramgen.backends.rpg import RPG
from paramgen.backends.wild import WildPDiff
from paramgen.behaviour import BehaviouralLoss
from paramgen.cli import main as paramgen
from paramgen.codec import FlatCodec, ParamCodec, TokenCodec
from paramgen.commands.unseen import references, sampled
from paramgen.data import ParameterDataModule
from paramgen.generator import ParameterGenerator
from paramgen.tasks import load_family
from paramgen.zoo import Zoo

CONFIGS = {"relabel": "digits_relabel", "rotations": "digits_rotations_lora", "domains": "pacs_domains"}
SOLVER = {"scheduler": "DDIM", "num_inference_steps": 20}
QUICK = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", **SOLVER}
PDIFF = {
    "latent": "pca",
    "denoiser": "mlp",
    "denoiser_width": 256,
    "denoiser_depth": 3,
    "cond_entry": "concat",
    "lr": 1e-3,
    "lr_schedule": "cosine",
    **QUICK,
}
RECURRENT = {
    "d_model": [128, 128],
    "head": "mlp",
    "state": "none",
    "sampling": "full",
    "lr": 2e-3,
    "warmup_steps": 20,
    **QUICK,
}
SMALL_WILD = {
    "vae_channels": [16, 32, 32, 16],
    "latent_dim": 64,
    "unet_channels": [32, 64, 64],
    "cond_entry": "latent",
    "lr": 1e-3,
    **QUICK,
}


def fit(
    zoo: Zoo,
    backend: type[ParameterGenerator],
    codec: ParamCodec,
    steps: int,
    batch_size: int,
    arguments: dict[str, Any],
    behaviour: bool = False,
) -> ParameterGenerator:
    """A generator fitted on a zoo's seen tasks."""
    data = ParameterDataModule(str(zoo.path), codec=codec, batch_size=batch_size, steps_per_epoch=steps)
    linked = {n: getattr(data, n) for n in ("seq_len", "token_dim", "cond_dim", "num_networks", "num_runs")}
    model = backend(**{n: v for n, v in linked.items() if n in signature(backend).parameters}, **arguments)
    trainer = lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        callbacks=[BehaviouralLoss(images_per_step=32)] if behaviour else [],
    )
    trainer.fit(model, datamodule=data)
    return model


def generators(steps: int) -> dict[str, Callable[[Zoo], ParameterGenerator]]:
    """Every generator of the comparison, by the name of its row."""
    token = {"token_dim": 256, "normalisation": "centre"}
    wild = {**SMALL_WILD, "vae_steps": steps // 2}
    return {
        "p-diff": lambda zoo: fit(zoo, PDiff, FlatCodec(), steps, 64, PDIFF),
        "rpg": lambda zoo: fit(zoo, RPG, TokenCodec(**token), steps, 32, RECURRENT),
        "wild": lambda zoo: fit(zoo, WildPDiff, FlatCodec(), steps, 32, wild),
        "p-diff*": lambda zoo: fit(zoo, PDiff, FlatCodec(), steps, 64, PDIFF, behaviour=True),
        "rpg*": lambda zoo: fit(zoo, RPG, TokenCodec(**token), steps, 32, RECURRENT, behaviour=True),
    }


def study(zoo: Zoo, wanted: list[str], steps: int, per_task: int, seed: int) -> dict[str, dict[str, float]]:
    """Every row on one zoo."""
    family = load_family(zoo.task_config)
    rows = {name: _row(row.unseen) for name, row in references(zoo, family, "test").items()}
    for name, make in generators(steps).items():
        if name not in wanted:
            continue
        lightning.seed_everything(seed, verbose=False)
        begun = time.process_time()
        model = make(zoo)
        seconds = time.process_time() - begun
        unseen = sampled(model, zoo, family, family.unseen, per_task)
        seen = sampled(model, zoo, family, family.seen[:40], per_task)
        rows[name] = _row(unseen) | {"seen": float(seen.mean()), "cpu_seconds": seconds}
        print(
            f"  {zoo.name}: {name} {100 * unseen.mean():.2f} (seen {100 * seen.mean():.2f}), {seconds:.0f} s",
            flush=True,
        )
    return rows


def collected(name: str, options: list[str], work: Path) -> Zoo:
    """A zoo by its name in the work folder, made if it is not there."""
    if not (work / name / "zoo.json").exists() and paramgen(["collect_tasks", *options, "--out", str(work / name)]):
        raise SystemExit(2)
    return Zoo(work / name)


def zoos(arguments: argparse.Namespace) -> dict[str, list[Zoo]]:
    """The zoos of a study, by case: starts L, M, H of rotations, the domain left out."""
    config = ["--config", CONFIGS[arguments.study]]
    cases: dict[str, list[Zoo]] = defaultdict(list)
    for seed in range(arguments.zoos):
        if arguments.study == "relabel":
            options = [*config, "--seed", str(seed), "--family.init_args.seed", str(seed)]
            cases["codes"].append(collected(f"relabel_{seed}", options, arguments.work))
        elif arguments.study == "rotations":
            for start in arguments.start:
                options = [*config, "--seed", str(seed), "--start", start]
                cases[start].append(collected(f"rotations_{start}_{seed}", options, arguments.work))
        else:
            for domain in arguments.unseen:
                options = [*config, "--seed", str(seed), "--family.init_args.unseen", json.dumps([domain])]
                options += ["--family.init_args.root", arguments.root] if arguments.root else []
                cases[domain].append(collected(f"domains_{domain}_{seed}", options, arguments.work))
    return cases


def _row(accuracy: Tensor) -> dict[str, float]:
    return {"unseen": float(accuracy.mean()), "worst": float(accuracy.min())}


def _print(case: str, rows: list[dict[str, dict[str, float]]]) -> None:
    print(f"\n{case} ({len(rows)} zoos)\n{'':14s}{'unseen':>14s}{'worst':>8s}{'seen':>8s}{'CPU s':>8s}")
    for name in rows[0]:
        values = {key: torch.tensor([row[name][key] for row in rows]) for key in rows[0][name]}
        spread = f"{100 * values['unseen'].mean():.2f} ± {100 * values['unseen'].std(correction=0):.2f}"
        more = "".join(
            f"{factor * values[key].mean():8.{digits}f}" if key in values else " " * 8
            for key, factor, digits in (("worst", 100, 1), ("seen", 100, 1), ("cpu_seconds", 1, 0))
        )
        print(f"{name:14s}{spread:>14s}{more}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=CONFIGS)
    parser.add_argument("--zoos", type=int, default=1)
    parser.add_argument("--start", nargs="+", default=["random", "same", "converged"])
    parser.add_argument("--unseen", nargs="+", default=["art_painting", "cartoon", "photo", "sketch"])
    parser.add_argument("--data.root", dest="root")
    parser.add_argument("--generators", nargs="*", default=["p-diff", "rpg", "wild", "p-diff*"])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--per_task", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("runs/conditional"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    found = {
        case: [study(zoo, arguments.generators, arguments.steps, arguments.per_task, i) for i, zoo in enumerate(group)]
        for case, group in zoos(arguments).items()
    }
    for case, rows in found.items():
        _print(case, rows)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
