"""What two shards gain over one process: collect, sample and evaluate, alone and in two parts that run at the same time.

    PARAMGEN_DATA=… OMP_NUM_THREADS=1 python benchmarks/shards.py --out benchmarks/results/x86_64_cpu_shards.json

A zoo is collected, RPG is fitted to it for a few steps (what sampling costs does not depend on how long) and samples, and the
zoo is evaluated with every baseline. Each command runs as one process, as shards and as their merge, in turns; every process is
forked after the imports, which each real process pays once more (`start_seconds`). CPU seconds hardly depend on what else runs:
`cpu_speedup` is one process against the longest shard and the merge, and the turn with its median counts. Wall time is of this
machine as it was. The results are compared: zoos and samples file by file, reports without their times.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import paramgen.backends
import paramgen.cli.commands.evaluate
import paramgen.cli.commands.sample
import paramgen.collect.single  # noqa: F401
from paramgen import fit
from paramgen.cli import dispatch
from paramgen.evaluation.compare import machine

TIMES = ("command", "seconds", "forward_seconds", "sample_seconds", "pid", "fit_seconds")


class Spent(NamedTuple):
    """Of processes that ran at the same time: seconds until the last ended, and CPU seconds of each."""

    wall: float
    cpu: list[float]


def spent(commands: Sequence[Sequence[str]]) -> Spent:
    """Run commands at the same time, each in a forked process."""
    begun, running = time.perf_counter(), [_fork(list(command)) for command in commands]
    cpu = []
    for pid in running:
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise SystemExit(f"a command failed with status {status}: {commands}")
        cpu.append(usage.ru_utime + usage.ru_stime)
    return Spent(time.perf_counter() - begun, cpu)


def _fork(command: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        dispatch.run(command)
        status = 0
    finally:
        os._exit(status)


def start_seconds() -> float:
    """CPU seconds of a process that only imports a command."""
    begun = os.times()
    line = "import paramgen.backends, paramgen.cli.commands.sample, paramgen.cli.commands.evaluate"
    subprocess.run([sys.executable, "-c", line], check=True)
    ended = os.times()
    return ended.children_user + ended.children_system - begun.children_user - begun.children_system


def content(folder: Path) -> dict[str, Any]:
    """Every network and index of a folder, without times."""
    found: dict[str, Any] = {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}
    for path in folder.glob("*.json"):
        found[path.name] = _timeless(json.loads(path.read_text()))
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(v) for key, v in value.items() if key not in TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def compare(command: list[str], out: Path, count: int, turns: int) -> dict[str, Any]:
    """A command alone and in shards; the result of the last turn stays in `out`.

    Args:
        command: Without ``--out``.
        out: Its folder.
        count: Shards.
        turns: How often both are run, one after another.
    """
    found = []
    for _ in range(turns):
        parts = out.with_name(f"{out.name}-parts")
        for folder in (out, parts):
            shutil.rmtree(folder, ignore_errors=True)
        alone = spent([[*command, "--out", str(out)]])
        sharded = [*command, "--out", str(parts), "--shard"]
        shards = spent([[*sharded, f"{number}/{count}"] for number in range(1, count + 1)])
        merge = spent([[*sharded, "merge"]])
        found.append(
            {
                "wall": {"alone": alone.wall, "shards": shards.wall, "merge": merge.wall},
                "cpu": {"alone": alone.cpu[0], "shards": shards.cpu, "merge": merge.cpu[0]},
                "speedup": alone.wall / (shards.wall + merge.wall),
                "cpu_speedup": alone.cpu[0] / (max(shards.cpu) + merge.cpu[0]),
                "cpu_overhead": (sum(shards.cpu) + merge.cpu[0]) / alone.cpu[0] - 1,
                "equal": content(out) == content(parts),
                "load": os.getloadavg()[0],
            }
        )
        print(json.dumps({"command": command[0], **found[-1]}, indent=1), flush=True)
    middle = sorted(found, key=lambda turn: turn["cpu_speedup"])[len(found) // 2]
    return {"median": middle, "turns": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "shards")
    parser.add_argument("--only", nargs="*", default=["collect", "collect_runs", "sample", "evaluate"])
    parser.add_argument("--recipe", default="mnist_mlp_seeds20")
    parser.add_argument("--runs", type=int, default=60, help="of collect_runs: more than the recipe's 23, and even")
    parser.add_argument("--n", type=int, default=256, help="networks that are sampled")
    parser.add_argument("--rows", type=int, default=400, help="networks of a row of the evaluation")
    parser.add_argument("--solver", nargs="*", default=["--num_inference_steps", "100"])
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--turns", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    scratch, results = args.scratch, {}
    zoo, checkpoint = scratch / "zoo", scratch / "fit" / "last.ckpt"
    commands = {
        "collect": (["collect", "--config", args.recipe], zoo),
        "collect_runs": (["collect", "--config", args.recipe, "--runs", str(args.runs)], scratch / "larger"),
        "sample": (["sample", "--ckpt_path", str(checkpoint), "--n", str(args.n), *args.solver], scratch / "samples"),
        "evaluate": (["evaluate", "--zoo", str(zoo), "--n", str(args.rows)], scratch / "report"),
    }
    for name in args.only:
        command, out = commands[name]
        if name == "sample" and not checkpoint.exists():
            settings = {"data.zoo": str(zoo), "trainer.max_steps": 5, "checkpoint.dirpath": str(checkpoint.parent)}
            fit("rpg", settings)
        results[name] = compare(command, out, args.shards, args.turns)
    value = {
        "machine": machine(),
        "threads": 1,
        "cores": os.cpu_count(),
        "start_seconds": start_seconds(),
        "recipe": args.recipe,
        "runs": args.runs,
        "n": args.n,
        "rows": args.rows,
        "commands": results,
    }
    if args.out.exists():  # commands that were measured before
        value["commands"] = json.loads(args.out.read_text())["commands"] | results
    args.out.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
