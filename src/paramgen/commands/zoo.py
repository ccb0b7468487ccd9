"""``paramgen zoo info | verify | import | align``: what is in a zoo, is it whole, networks from elsewhere, one order of hidden units."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from paramgen.align import align_state_dicts
from paramgen.errors import ParamgenError
from paramgen.files import read_tensors
from paramgen.pickles import read_pickle
from paramgen.select import select_tensors
from paramgen.spec import ParamSpec
from paramgen.tasks import Task
from paramgen.tasks.scoring import predict
from paramgen.zoo import Zoo, ZooWriter, refuse_other

_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_CONTAINERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "net")  # Lightning, timm and common habits


def info(zoo: str) -> None:
    """What a zoo holds.

    Args:
        zoo: Folder or name of a zoo.
    """
    found = Zoo(zoo)
    console = Console()
    console.print(f"[bold]{found.name}[/bold]  {found.path}")
    console.print(f"task      {_task_line(found.task_config)}")
    splits = Counter(entry.split for entry in found.entries)
    runs = {split: len({e.run for e in found.entries if e.split == split}) for split in splits}
    console.print("networks  " + ", ".join(f"{n} {split} ({runs[split]} runs)" for split, n in splits.items()))
    console.print(
        f"generated {found.spec.numel:,} parameters in {len(found.spec.tensors)} tensors; {len(found.base())} kept fixed"
    )
    for part in ("train", "val"):
        scores = [e.scores[part]["accuracy"] for e in found.entries if part in e.scores]
        if scores:
            values = torch.tensor(scores)
            console.print(
                f"{part:10s}accuracy mean {100 * values.mean():.2f} %, from {100 * values.min():.2f} to {100 * values.max():.2f}"
            )
    table = Table("tensor", "shape", "kind", "dtype", "mean", "std", box=None, header_style="bold")
    for tensor in found.spec.tensors:
        statistics = found.meta.get("statistics", {}).get(tensor.name, {})
        numbers = [f"{statistics[key]:.4g}" if key in statistics else "" for key in ("mean", "std")]
        table.add_row(tensor.name, "x".join(map(str, tensor.shape)) or "scalar", tensor.kind, tensor.dtype, *numbers)
    console.print(table)


def verify(zoo: str) -> None:
    """Read every file of a zoo and compare it with what was recorded.

    Args:
        zoo: Folder or name of a zoo.

    Raises:
        ParamgenError: A file is missing, altered, of another shape or not finite; all are named.
    """
    found = Zoo(zoo)
    problems = found.verify()
    if problems:
        raise ParamgenError(f"{len(problems)} of {len(found)} networks are damaged: {'; '.join(problems)}")
    print(f"{found.name}: {len(found)} networks, every file is whole")


def import_(
    source: str,
    out: str,
    task: Task,
    prefix: str = "",
    parameters: list[str] | None = None,
    one_run: bool = True,
    val_networks: int = 0,
    heldout_networks: int = 0,
    score: bool = True,
) -> None:
    """Make a zoo of checkpoints from elsewhere: a folder of .safetensors, .pt, .pth, .ckpt or .bin files.

    Args:
        source: Folder with one file a network, taken in the order of their names.
        out: Folder of the new zoo.
        task: What the networks do: their architecture and data.
        prefix: Cut from the front of every key, for example ``model.``; keys without it are left out.
        parameters: Names, globs, ``re:`` patterns or named subsets to generate; all when left out.
        one_run: The files are steps of one run (all training data); otherwise each is a run of its own.
        val_networks: With separate runs, so many last ones but the held-out are for validation.
        heldout_networks: With separate runs, so many last ones are the evaluator's.
        score: Record accuracies on the task's train and val images.

    Raises:
        ParamgenError: No files, a pickle with code in it, keys or shapes that do not fit the architecture, NaN or infinite values.
    """
    if one_run and (val_networks or heldout_networks):
        raise ParamgenError("val_networks and heldout_networks need one_run=false: splits are by run")
    folder = Path(source)
    files = sorted(p for p in folder.glob("*") if p.suffix in _SUFFIXES)
    if not files:
        raise ParamgenError(f"no {', '.join(_SUFFIXES)} file in {source!r}")
    network = task.build()
    expected = network.state_dict()
    spec = ParamSpec.of(network, select_tensors(network, parameters or ["all"]))
    states = (_read_network(path, prefix, expected) for path in files)
    first = next(states)
    recipe = {"imported_from": str(folder), "files": [p.name for p in files], "prefix": prefix}
    base = {name: tensor for name, tensor in first.items() if name not in {*spec.names, *spec.aliases}}
    writer = ZooWriter(out, spec, base, task.config(), recipe)
    train_networks = len(files) - val_networks - heldout_networks
    for i, path in enumerate(files):
        state = first if i == 0 else next(states)
        _check_rest(state, base, path)
        spec.check(state, where=str(path))
        run = 0 if one_run else i
        if (run, i) in writer.done:  # by the same command, stopped before its end
            continue
        scores = {}
        for part in ("train", "val") if score else ():
            found = predict(network, [state], task.data(part))
            scores[part] = {"accuracy": float(found.accuracy[0]), "loss": float(found.loss[0])}
        split = "train" if i < train_networks else "val" if i < len(files) - heldout_networks else "heldout"
        writer.add(state, run=run, step=i, seed=0, split=split, scores=scores)
    zoo = writer.close()
    print(f"{len(zoo)} networks of {zoo.spec.numel:,} generated parameters, in {zoo.path}")


def align(zoo: str, out: str, rounds: int = 4, scale: bool = True, seed: int = 0, trust: bool = False) -> None:
    """Write a zoo whose networks have their hidden units in one order and on one scale; each computes what it computed.

    Args:
        zoo: Folder or name of a zoo.
        out: Folder of the aligned zoo.
        rounds: Rounds of matching to the running mean, after the first to one network.
        scale: Balance each hidden unit's input and output norm too, where its activation allows it.
        seed: Chooses that first network.
        trust: Run the code of classes that these files name and that are not part of paramgen; only for files of people you trust.

    Raises:
        ParamgenError: The network's symmetries cannot be read from its graph, or `out` already holds a zoo.
    """
    found = Zoo(zoo, trust)
    recipe = {
        "aligned_from": str(found.path),
        "rounds": rounds,
        "scale": scale,
        "seed": seed,
        "recipe": found.meta["recipe"],
    }
    refuse_other(out, found.task_config, recipe)
    task = found.task()
    images, _ = next(iter(task.data("train").batches(2)))
    result = align_state_dicts(task.build().eval(), images, list(found), rounds, seed, scale, found.indices("train"))
    writer = ZooWriter(out, found.spec, found.base(), found.task_config, recipe)
    for entry, state in zip(found.entries, result.state_dicts, strict=True):
        if (entry.run, entry.step) not in writer.done:
            kept = {k: v for k, v in vars(entry).items() if k not in ("file", "sha256")}
            writer.add(state, **kept)
    writer.close(**({"seconds": found.meta["seconds"]} if "seconds" in found.meta else {}))
    before, after = result.mean_cost_before, result.mean_cost_after
    print(
        f"{len(found)} networks aligned, mean distance to their mean {before:.3g} before and {after:.3g} after, in {out}"
    )


def _read_network(path: Path, prefix: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One file's state dict, bare or in a checkpoint, its prefix cut, checked against the architecture."""
    saved: Any = read_tensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    if not isinstance(saved, Mapping):
        raise ParamgenError(f"{path} holds a {type(saved).__name__}, expected a state dict")
    saved = next((saved[key] for key in _CONTAINERS if isinstance(saved.get(key), Mapping)), saved)
    state = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix) and isinstance(v, Tensor)}
    if missing := [k for k in expected if k not in state]:
        raise ParamgenError(
            f"{path}: no tensor {missing[0]!r} ({len(missing)} missing); it has {', '.join(list(saved)[:6])}"
        )
    if more := [k for k in state if k not in expected]:
        raise ParamgenError(
            f"{path}: tensor {more[0]!r} is not in the architecture ({len(more)} such); cut it with prefix?"
        )
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise ParamgenError(
                f"{path}: {name!r} has shape {tuple(state[name].shape)}, the architecture {tuple(tensor.shape)}"
            )
    return {name: state[name] for name in expected}


def _check_rest(state: Mapping[str, Tensor], base: Mapping[str, Tensor], path: Path) -> None:
    """What is not generated is stored once, so it must be alike in all files; counters of batches may differ."""
    for name, tensor in base.items():
        if tensor.is_floating_point() and not torch.equal(state[name], tensor):
            raise ParamgenError(
                f"{path}: {name!r} is not among the generated parameters but differs from the first file's"
            )


def _task_line(config: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{k}={v}" for k, v in config["init_args"].items() if v not in (None, {}, []))
    return f"{config['class_path'].rsplit('.', 1)[-1]}({arguments})"


COMMANDS = {"info": info, "verify": verify, "import": import_, "align": align}
