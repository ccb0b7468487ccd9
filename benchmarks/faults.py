"""What a command leaves behind when it is killed, stopped, or cannot write: 20 trials of each fault on each command.

    OMP_NUM_THREADS=1 python benchmarks/faults.py --out benchmarks/results/faults.json

Commands: ``collect``, ``zoo import``, ``fit``, ``sample`` and ``compare`` on small digits networks, each in a process forked from one that
has imported everything, so that a fault falls into the work and not into the imports. Faults: SIGKILL and SIGTERM at a random moment, a
file system (a small tmpfs) that becomes full, and an unfinished folder that has become read-only; the last two need root and are left
out without. A trial survives if

- the exit code is the documented one, and what the user sees is one line and no traceback;
- every file in the folder is complete, and only a killed process leaves a lock or temporary files;
- the command can be run again: it ends with the files that it writes undisturbed, number for number, and leaves nothing else. A fit that
  was stopped goes on from its last checkpoint instead, and ends with all of its steps.

Only trials that hit a running command count. Moments are drawn from a fixed seed; where they fall depends on the machine's speed.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from PIL import Image

from fork_server import Commands, Ended
from paramgen.core.io import read_json, read_tensors
from paramgen.errors import ParamgenError
from paramgen.evaluation.compare import machine
from paramgen.generators.restore import read_checkpoint

TASK = ["--task=ClassificationTask", "--task.network_args={hidden: [24]}"]
RECIPE = {"epochs": 8, "runs": 4, "checkpoints": 15, "val_runs": 1, "heldout_runs": 1}
STEPS = 100
FIT = {
    "model": {
        "class_path": "PDiff",
        "init_args": {"autoencoder": {"kind": "pca"}, "denoiser": {"kind": "mlp", "width": 64}},
    },
    "data": {"zoo": "ROOT/zoo", "codec": {"class_path": "FlatCodec"}},
    "trainer": {"max_steps": STEPS, "logger": False, "enable_progress_bar": False, "accelerator": "cpu"},
    "quality": {"sample_every": 0},
    "checkpoint": {"every_n_train_steps": 20},
}
VOLATILE = (
    "seconds",
    "command",
    "machine",
    "checkpoint_sha256",
    "history",
    "fit_config",
    "sha256",
)  # parts of JSON keys


@dataclass(frozen=True)
class Case:
    """A command under test.

    Args:
        name: Of the command.
        arguments: Its command line; ``OUT`` stands for the folder that it writes.
        go_on: The command line that goes on where a stopped one saved; the same when empty.
    """

    name: str
    arguments: list[str]
    go_on: list[str] = field(default_factory=list)


class Trial(NamedTuple):
    """One fault: how the command ended, and all that is wrong with what it left; None where the fault came too late."""

    ended: Ended
    problems: list[str]


# ---- what is in a folder


def torn(out: Path) -> list[str]:
    """Files that are not complete, by name and reason."""
    problems = []
    for path in sorted(p for p in out.rglob("*") if p.is_file() and not p.name.startswith(".")):
        try:
            READERS.get(path.suffix, lambda _: None)(path)
        except (ParamgenError, ValueError, OSError, SyntaxError, yaml.YAMLError) as error:
            problems.append(f"torn: {path.relative_to(out)}: {error}")
    return problems


def hidden(out: Path) -> list[str]:
    """Locks and temporary files."""
    return [f"left behind: {p.relative_to(out)}" for p in sorted(out.rglob(".*"))]


def contents(out: Path) -> dict[str, str]:
    """A digest of every file of a finished folder; of JSON without what differs from one run to the next, such as seconds."""
    return {
        str(p.relative_to(out)): DIGESTS.get(p.suffix, lambda _: "")(p) for p in sorted(out.rglob("*")) if p.is_file()
    }


def _read_lines(path: Path) -> None:
    for line in path.read_text().splitlines():
        json.loads(line)


def _read_page(path: Path) -> None:
    if not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("no end")


def _read_image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _steady(value: Any) -> Any:
    """JSON without what differs from one run to the next."""
    if isinstance(value, dict):
        return {k: _steady(v) for k, v in value.items() if not any(name in k for name in VOLATILE)}
    return [_steady(v) for v in value] if isinstance(value, list) else value


def _weights(path: Path) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(read_checkpoint(path)["state_dict"].items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": read_tensors,
    ".json": read_json,
    ".jsonl": _read_lines,
    ".ckpt": read_checkpoint,
    ".html": _read_page,
    ".png": _read_image,
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
}
DIGESTS: dict[str, Callable[[Path], str]] = {
    ".safetensors": lambda path: hashlib.sha256(path.read_bytes()).hexdigest(),
    # made.json holds checksums of files with seconds in them
    ".json": lambda path: "" if "made.json" in path.name else json.dumps(_steady(read_json(path)), sort_keys=True),
    ".ckpt": _weights,
}


# ---- faults


class Bench:
    """The cases on one folder.

    Args:
        root: A temporary folder.
        seed: Of the moments.
        commands: What runs them.
    """

    def __init__(self, root: Path, seed: int, commands: Commands) -> None:
        self.root, self.seed, self.random, self.commands = root, seed, random.Random(), commands
        self.disk = root / "disk"  # what is mounted is mounted here
        self.out = self.disk / "out"
        self.disk.mkdir()
        self.expected: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}
        self.bytes: dict[str, int] = {}

    def line(self, words: list[str]) -> list[str]:
        """A command line with the folders in their places."""
        return [word.replace("OUT", str(self.out)).replace("ROOT", str(self.root)) for word in words]

    def clear(self) -> None:
        """An empty folder."""
        shutil.rmtree(self.out, ignore_errors=True)

    def undisturbed(self, case: Case, runs: int = 2) -> None:
        """Run a command without a fault, twice: what it writes must be the same for a comparison to mean anything."""
        found = []
        for _ in range(runs):
            self.clear()
            ended = self.commands.run(self.line(case.arguments), self.root)
            if ended.code != 0 or torn(self.out) or hidden(self.out):
                raise SystemExit(
                    f"{case.name} fails without a fault:\n{ended.text}\n{torn(self.out)}{hidden(self.out)}"
                )
            found.append(contents(self.out))
        if different := [name for name in found[0] if found[0][name] != found[-1].get(name)]:
            raise SystemExit(f"{case.name} differs from one run to the next: {different}")
        self.expected[case.name], self.seconds[case.name] = found[0], ended.seconds
        self.bytes[case.name] = sum(p.stat().st_size for p in self.out.rglob("*"))

    def interrupted(self, case: Case, number: int) -> Trial | None:
        """A signal at a random moment."""
        self.clear()
        ended = self.commands.run(
            self.line(case.arguments), self.root, number, self.random.uniform(0, self.seconds[case.name])
        )
        expected = -number if number == signal.SIGKILL else 128 + number
        if ended.code == 0:  # it came too late: the machine has become faster
            self.seconds[case.name] = ended.seconds
            return None
        if not ended.text and not self.out.exists():  # too early: the command had not begun
            self.seconds[case.name] *= 1.2
            return None
        if ended.code == -signal.SIGTERM and contents(self.out) == self.expected[case.name]:
            return None  # too late: the command had ended, its process had not
        problems = torn(self.out)
        if number != signal.SIGKILL:
            problems += self.said(ended, expected) + hidden(self.out)
        elif ended.code != expected:
            problems.append(f"exit code {ended.code}, expected {expected}")
        return Trial(ended, problems + self.again(case, stopped=number == signal.SIGTERM))

    def full(self, case: Case) -> Trial | None:
        """A file system that becomes full at a random moment, and has room again later."""
        size = 16_384 + int(self.random.uniform(0, 0.9) * self.bytes[case.name])
        with self.mounted(size):
            ended = self.commands.run(self.line(case.arguments), self.root)
            if ended.code == 0:
                return None
            problems = torn(self.out) + self.said(ended, 2) + hidden(self.out)
            self.remount("size=256m")
            return Trial(ended, problems + self.again(case))

    def read_only(self, case: Case) -> Trial | None:
        """An unfinished folder that has become read-only, and can be written again later."""
        with self.mounted(1 << 28):
            moment = self.random.uniform(0, self.seconds[case.name])
            killed = self.commands.run(self.line(case.arguments), self.root, signal.SIGKILL, moment)
            if killed.code == 0:
                self.seconds[case.name] = killed.seconds
            elif not self.out.exists():
                self.seconds[case.name] *= 1.2
            if killed.code == 0 or not self.out.exists():
                return None
            before = contents(self.disk)
            self.remount("ro")
            ended = self.commands.run(self.line(case.arguments), self.root)
            problems = self.said(ended, 2)
            if contents(self.disk) != before:
                problems.append("something changed")
            self.remount("rw")
            return Trial(ended, problems + self.again(case))

    def said(self, ended: Ended, code: int) -> list[str]:
        """What is wrong with an exit code, or with anything but one line on the terminal."""
        lines = [line for line in ended.text.splitlines() if line.startswith("paramgen: ")]
        problems = [] if ended.code == code else [f"exit code {ended.code}, expected {code}: {ended.text[-500:]}"]
        if len(lines) != 1 or "Traceback" in ended.text:
            problems.append(f"{len(lines)} lines instead of one: {ended.text[-500:]}")
        return problems

    def again(self, case: Case, stopped: bool = False) -> list[str]:
        """What is wrong after the command was run again."""
        saved = stopped and (self.out / "last.ckpt").exists()
        ended = self.commands.run(self.line(case.go_on if saved and case.go_on else case.arguments), self.root)
        finished = ended.code == 2 and "already holds" in ended.text  # the fault came after the last file
        problems = [] if ended.code == 0 or finished else [f"run again: exit code {ended.code}: {ended.text[-500:]}"]
        problems += torn(self.out) + hidden(self.out)
        if saved and case.go_on:
            steps = read_checkpoint(self.out / "last.ckpt")["global_step"]
            return problems if steps == STEPS else [*problems, f"ended after {steps} steps"]
        now, expected = contents(self.out), self.expected[case.name]
        different = [name for name in sorted({*now, *expected}) if now.get(name) != expected.get(name)]
        return [*problems, f"other files after it was run again: {different}"] if different else problems

    @contextmanager
    def mounted(self, size: int) -> Iterator[None]:
        """A tmpfs in place of the disk."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.disk)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", str(self.disk)], check=True)

    def remount(self, options: str) -> None:
        """Change the tmpfs."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.disk)], check=True)


def options(values: dict[str, Any]) -> list[str]:
    """``--name=value`` for each."""
    return [f"--{name}={json.dumps(value) if not isinstance(value, str) else value}" for name, value in values.items()]


def cases() -> list[Case]:
    """The commands, in an order in which each finds what the ones before it made: ROOT/zoo and ROOT/fit."""
    fit = ["fit", "--config=ROOT/fit.yaml", "--checkpoint.dirpath=OUT"]
    comparison = {
        "zoos": {"zoo": {"collect": "ROOT/collect.yaml"}},
        "generators": {"pdiff": {"fit": "ROOT/fit.yaml", "sample": {"num_inference_steps": 50}}},
        "n": 20,
        "baselines": ["noise-0.5", "gaussian"],
    }
    return [
        Case("collect", ["collect", *TASK, *options(RECIPE), "--out=OUT"]),
        Case("import", ["zoo", "import", *TASK, "--source=ROOT/imported", "--out=OUT"]),
        Case("fit", fit, [*fit, "--ckpt_path=OUT/last.ckpt"]),
        Case(
            "sample", ["sample", "--ckpt_path=ROOT/fit/last.ckpt", "--n=100", "--num_inference_steps=50", "--out=OUT"]
        ),
        Case("compare", ["compare", *options(comparison), "--out=OUT"]),
    ]


def prepare(bench: Bench, case: Case) -> None:
    """Keep what later commands read."""
    root = bench.root
    if case.name == "collect":
        shutil.copytree(bench.out, root / "zoo")
        (root / "imported").mkdir()
        for path in bench.out.glob("run*.safetensors"):
            shutil.copy(path, root / "imported")
        task = {"class_path": "ClassificationTask", "init_args": {"network_args": {"hidden": [24]}}}
        (root / "collect.yaml").write_text(yaml.safe_dump({"task": task, **RECIPE}))
        (root / "fit.yaml").write_text(yaml.safe_dump(FIT).replace("ROOT", str(root)))
    if case.name == "fit":
        shutil.copytree(bench.out, root / "fit")


def add_trial(bench: Bench, case: Case, fault: Callable[[Case], Trial | None], row: dict[str, Any]) -> None:
    """One more trial of a row of the table; moments depend on how many there are, so that a row can go on later."""
    bench.random.seed(f"{bench.seed} {row['command']} {row['fault']} {row['tried']}")
    trial = next((trial for _ in range(50) if (trial := fault(case)) is not None), None)
    if trial is None:
        raise SystemExit(f"{case.name}: no moment of 50 hit the running command")
    row["tried"] += 1
    row["survived"] += not trial.problems
    row["problems"] += [problem.strip().replace(str(bench.root), "") for problem in trial.problems]


def table(results: dict[str, Any]) -> str:
    """The rows as docs/reliability.md shows them."""
    rows = [f"| {r['command']} | {r['fault']} | {r['tried']} | {r['survived']} |" for r in results["rows"]]
    return "\n".join(["| command | fault | trials | survived |", "| --- | --- | --- | --- |", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="of each fault on each command")
    parser.add_argument("--quick", action="store_true", help="3 trials")
    parser.add_argument("--only", nargs="*", help="commands to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="JSON file; trials that it holds are kept, and those that are missing are added"
    )
    args = parser.parse_args()
    saved = json.loads(args.out.read_text())["rows"] if args.out and args.out.exists() else []
    rows = {(row["command"], row["fault"]): row for row in saved}
    with tempfile.TemporaryDirectory() as folder, Commands() as commands:
        bench = Bench(Path(folder), args.seed, commands)
        faults: dict[str, Callable[[Case], Trial | None]] = {
            "SIGKILL": lambda case: bench.interrupted(case, signal.SIGKILL),
            "SIGTERM": lambda case: bench.interrupted(case, signal.SIGTERM),
        }
        if os.geteuid() == 0:
            faults |= {"full disk": bench.full, "read-only": bench.read_only}
        else:
            print("full disk and read-only are left out: mounting a file system needs root")
        for case in cases():
            bench.undisturbed(case)
            prepare(bench, case)
            print(f"{case.name:10s}undisturbed {bench.seconds[case.name]:.1f} s", flush=True)
            mine = [name for name in faults if case.name in (args.only or [case.name])]
            for name in mine:
                empty = {"command": case.name, "fault": name, "tried": 0, "survived": 0, "problems": []}
                rows.setdefault((case.name, name), empty)
            for goal in range(3 if args.quick else args.trials):
                for name in mine:
                    if rows[case.name, name]["tried"] <= goal:
                        add_trial(bench, case, faults[name], rows[case.name, name])
                if mine and args.out:
                    results = {"machine": machine(), "seed": args.seed, "rows": [*rows.values()]}
                    args.out.write_text(json.dumps(results, indent=1) + "\n")
            for name in mine:
                print(json.dumps(rows[case.name, name]), flush=True)
    print(table({"rows": rows.values()}))


if __name__ == "__main__":
    main()
