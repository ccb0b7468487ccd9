"""Damaged files, by the thousand: whatever a reader is given, it reads it or raises ParamgenError.

python tests/fuzz.py --count 250               # of each kind, as the suite runs it
python tests/fuzz.py --total 100000            # spread over the kinds, as `make fuzz` runs it
python tests/fuzz.py --kinds checkpoint --only 17   # one input again, with its traceback

Input i of a kind is always the same: its seed is made of both. Opening counts, and so does using: networks are read, a journal is
resumed, a generator that loads draws a network. A hang is ended by an alarm after a few seconds; memory is bounded by RLIMIT_AS, a
gigabyte above what the process has after a first round of every kind, so that whoever takes memory for what a file merely claims fails.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from safetensors.torch import load, save
from torch import nn

from examples import example
from paramgen.backends.graph import GraphDiffusion
from paramgen.backends.pdiff import PDiff
from paramgen.backends.rpg import RPG
from paramgen.core.codec import FlatCodec, ParamCodec
from paramgen.core.io import inside, read_json, read_tensors, write_tensors
from paramgen.core.params import ParamSpec
from paramgen.core.sample_writer import PerNetwork, write_samples
from paramgen.core.samples import SampleInfo, read_samples
from paramgen.core.stored import StoredTensors
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError
from paramgen.evaluation.compare import Report, differences, summarise
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.loading import load_generator
from paramgen.symmetry.groups import Place
from paramgen.symmetry.layout import UnitLayout
from paramgen.tasks.weights import read_weights

SECONDS = 10  # an input may take; the slowest takes a few milliseconds
MEMORY = 1 << 30  # bytes that reading may take on top of what is there
TASK = {"class_path": "ClassificationTask", "init_args": {"data": "digits"}}
RECIPE = {"made": "by the fuzz", "lr": 0.1}

Mutate = Callable[[bytes, random.Random], bytes]


class Hang(BaseException):
    """An input took too long. Not an Exception, so that nobody catches it."""


class Kind(NamedTuple):
    """One kind of file: a whole one, how it is damaged, and what a user would do with it."""

    path: Path
    mutate: Mutate
    use: Callable[[], Any]


# valid inputs, and what is done with them


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def state(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return network().state_dict()


def write_zoo(path: Path) -> Zoo:
    writer = open_writer(path)
    for i in range(3):
        scores = {"val": {"score": 0.5, "loss": 0.7}}
        writer.add(state(i), run=i, step=1, seed=i, scores=scores, condition=[0.5, float(i)], task=f"t{i}")
    return writer.close(seconds=1.0)


def open_writer(path: Path) -> ZooWriter:
    spec = ParamSpec.of({k: v for k, v in state(0).items() if v.is_floating_point()})
    return ZooWriter(path, spec, {"1.num_batches_tracked": torch.tensor(0)}, TASK, RECIPE)


def use_zoo(path: Path) -> None:
    zoo = Zoo(path)
    zoo.verify()
    zoo.full(0)
    zoo.matrix(zoo.indices("train"))
    FlatCodec().bind(zoo.spec, zoo)
    [torch.tensor([e.run, e.step]) for e in zoo.entries]


def use_tensors(path: Path, zoo: Zoo) -> None:
    for read in (read_tensors, StoredTensors):
        try:
            found = read(path)
            [tensor.to(torch.float64).sum() for tensor in found.values() if not tensor.is_complex()]
            zoo.spec.check(found, where=str(path))
            FlatCodec().bind(zoo.spec, [found, found])
        except ParamgenError:
            if read is StoredTensors:
                raise


def write_checkpoint(path: Path, zoo: Zoo, model: ParameterGenerator, codec: ParamCodec) -> None:
    model.codec, model.base = codec, zoo.base()
    model.zoo_info = {"name": zoo.name, "path": str(zoo.path), "task": TASK, "networks": [0, 1, 2], "runs": [0, 1, 2]}
    saved: dict[str, Any] = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": "2.6.0",
        "callbacks": {"SampleQuality": {"history": {"mean": [[1, 0.5]]}, "stride": 1}},
    }
    model.on_save_checkpoint(saved)
    torch.save(saved, path)


def write_graph_checkpoint(path: Path, zoo: Zoo) -> None:
    """A checkpoint of graph diffusion; the units of the first layer are hidden."""
    codec = FlatCodec().bind(zoo.spec, zoo)
    shapes = {tensor.name: tensor.shape for tensor in zoo.spec.tensors}
    layout = UnitLayout(shapes, {"hidden": [Place("0.weight", 0, 0, 2, 1), Place("0.bias", 0, 0, 2, 1)]}).to_dict()
    settings: dict[str, Any] = {
        "denoiser": {"width": 8, "pair_width": 4, "depth": 1, "heads": 2},
        "diffusion": {"num_inference_steps": 2},
    }
    write_checkpoint(path, zoo, GraphDiffusion(*codec.shape, layout, **settings), codec)


def use_comparison(path: Path) -> None:
    for report in read_json(path, "comparison")["reports"]:
        inside(path.parent, report["file"])


def use_results(path: Path) -> None:
    reports = [Report("z", seed, path) for seed in (0, 1)]
    summarise(reports)
    differences(reports)


def kinds(folder: Path) -> dict[str, Kind]:
    """All kinds of files that are read, in a folder of their own."""
    zoo = write_zoo(folder / "zoo")
    journal = folder / "unfinished" / "zoo.partial.jsonl"
    shutil.copytree(zoo.path, journal.parent)
    (journal.parent / "zoo.json").unlink()
    header = {key: zoo.meta[key] for key in ("format", "task", "recipe", "spec")}
    journal.write_text("".join(json.dumps(line) + "\n" for line in (header, *zoo.meta["entries"])))
    samples = write_samples(folder / "samples", [zoo.full(i) for i in range(2)], SampleInfo(), PerNetwork([0, 1]))
    lone, weights = folder / "x.safetensors", folder / "x.pt"
    write_tensors(lone, zoo[0])
    torch.save({"state_dict": state(0), "epoch": 3, "args": argparse.Namespace(lr=0.1)}, weights)
    codec = FlatCodec().bind(zoo.spec, zoo)
    fitted, diffused, graph = folder / "x.ckpt", folder / "y.ckpt", folder / "z.ckpt"
    write_graph_checkpoint(graph, zoo)
    recurrent: dict[str, Any] = {
        "recurrence": {"kind": "none", "d_model": [8]},
        "head": {"kind": "mlp", "hidden": 4},
        "diffusion": {"num_inference_steps": 2},
    }
    write_checkpoint(fitted, zoo, RPG(*codec.shape, num_networks=3, **recurrent), codec)
    small: dict[str, Any] = {
        "autoencoder": {"kind": "pca", "latent_dim": 2},
        "denoiser": {"kind": "mlp", "width": 4, "depth": 1},
    }
    write_checkpoint(
        diffused, zoo, PDiff(*codec.shape, num_networks=3, diffusion={"num_inference_steps": 2}, **small), codec
    )
    results, comparison = folder / "results.json", folder / "comparison.json"
    direct = {**example("results#row"), "kind": "generator", "name": "a"}
    results.write_text(json.dumps({**example("results"), "rows": [*example("results")["rows"], direct]}))
    comparison.write_text(json.dumps({**example("comparison"), "title": "t"}))
    return {
        "zoo.json": Kind(zoo.path / "zoo.json", mutate_json, lambda: use_zoo(zoo.path)),
        "journal": Kind(journal, mutate_lines, lambda: open_writer(journal.parent)),
        "samples.json": Kind(samples / "samples.json", mutate_json, lambda: read_samples(samples, zoo)),
        "safetensors": Kind(lone, mutate_safetensors, lambda: use_tensors(lone, zoo)),
        "weights": Kind(weights, mutate_pickle, lambda: read_weights(weights)),
        "checkpoint": Kind(fitted, mutate_pickle, lambda: load_generator(fitted).sample(1)),
        "diffusion": Kind(diffused, mutate_pickle, lambda: load_generator(diffused).sample(1)),
        "graph": Kind(graph, mutate_pickle, lambda: load_generator(graph).sample(1)),
        "results": Kind(results, mutate_json, lambda: use_results(results)),
        "comparison": Kind(comparison, mutate_json, lambda: use_comparison(comparison)),
    }


# damage

VALUES = (
    *(None, True, False, 0, 1, -1, 2, 7, 255, 65536, 2**31, 2**53, 2**62, 2**63, 2**64, -(2**63), 10**30, 10**400),
    *(0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "x",
        "a" * 300,
        "\0",
        "\ud800",
        "é",
        "../x",
        "/dev/zero",
        "a/../../b",
        "F32",
        "float32",
        "builtins.eval",
        "os.system",
    ),
    *([], {}, [[]], [None], {"": 0}, [1, 2], ["x"] * 3, {"a": {"b": {"c": []}}}),
)


DTYPES = (torch.bool, torch.int8, torch.int64, torch.uint16, torch.float8_e4m3fn, torch.bfloat16, torch.complex64)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flips, cuts, insertions, splices, zeros, and other numbers."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, end, most = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1), rng.choice((1, 4, 32))
        match rng.randrange(7):
            case 0 if data:
                data = data[: at - 1] + bytes([data[at - 1] ^ 1 << rng.randrange(8)]) + data[at:] if at else data
            case 1:
                data = data[:at]
            case 2:
                data = data[:at] + rng.randbytes(most) + data[at:]
            case 3:
                data = data[:at] + data[end : end + most] + data[at:]
            case 4:
                data = data[:at] + bytes(len(data[at : at + most])) + data[at + most :]
            case 5:
                data = data[:at] + data[at + most :]
            case 6:
                data = (
                    data[:at]
                    + rng.choice((b"9" * 30, b"-1", b"1e999", b"NaN", b"[" * 2000, b"\xff\xfe", b'"'))
                    + data[at:]
                )
    return data


def mutate_value(value: Any, rng: random.Random, values: tuple[Any, ...] = VALUES) -> Any:
    """A copy of nested lists and objects with one place changed: another value, a field or item less, twice, or renamed."""
    if isinstance(value, torch.Tensor) and rng.random() < 0.5:
        with contextlib.suppress(
            RuntimeError, NotImplementedError
        ):  # a sparse tensor of the last round, or one without values
            return torch.full_like(value, float("nan")) if rng.random() < 0.3 else value.to(rng.choice(DTYPES))
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(values)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, copy = rng.choice(keys), value.copy()
    match rng.randrange(12):
        case 0:
            del copy[key]
        case 1 if isinstance(copy, dict):
            copy[rng.choice(("x", "", "é", *copy))] = copy.pop(key)
        case 1:
            copy.insert(rng.randrange(len(copy) + 1), copy[key])
        case 2:
            copy[key] = nested(rng.choice((5, 70, 900)))
        case _:
            copy[key] = mutate_value(copy[key], rng, values)
    return copy


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutate_value(value, rng)
    text = json.dumps(value)
    if rng.random() < 0.05:  # a field twice
        text = text.replace("{", '{"format": 1, "name": "x", "file": "x", ', 1)
    return text.encode()


def mutate_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            return mutate_bytes(data, rng)
        case 1:
            return data + rng.choice((bytes(512), b"{", b"\n\n", b"null\n", rng.randbytes(64)))
        case 2:
            lines.insert(rng.randrange(len(lines) + 1), lines.pop(at) if rng.random() < 0.5 else lines[at])
        case 3:
            lines[at] = mutate_json(lines[at], rng).replace(b"\n", b" ") + b"\n"
    return b"".join(lines)


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return mutate_bytes(data, rng)
    length = struct.unpack("<Q", data[:8])[0]
    header, tensors = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.3:  # tensors that fit their header, of other dtypes and shapes
        found = {name: mutate_value(tensor, rng, odd_tensors()[:7]) for name, tensor in load(data).items()}
        return save({name: tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)})
    header = mutate_json(header, rng)
    claimed = rng.choice((len(header),) * 6 + (0, len(header) + 1, 2**40, 2**64 - 1))
    return struct.pack("<Q", claimed) + header + (mutate_bytes(tensors, rng) if rng.random() < 0.2 else tensors)


def mutate_pickle(data: bytes, rng: random.Random) -> bytes:
    match rng.randrange(4):
        case 0:
            return mutate_bytes(data, rng)
        case 1:  # the pickle inside the archive, whose checksums are right
            return rezipped(
                data, lambda name, part: mutate_bytes(part, rng) if name.endswith("data.pkl") else part, rng
            )
        case 2:
            return rezipped(data, lambda name, part: mutate_bytes(part, rng) if rng.random() < 0.3 else part, rng)
    value = torch.load(io.BytesIO(data), weights_only=False)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutate_value(value, rng, (*VALUES, *odd_tensors()))
    file = io.BytesIO()
    try:
        torch.save(value, file, _use_new_zipfile_serialization=rng.random() < 0.8)
    except (RecursionError, RuntimeError):  # nested too deeply to be saved, or a tensor that cannot be
        return mutate_bytes(data, rng)
    return file.getvalue()


def odd_tensors() -> tuple[Any, ...]:
    ones = torch.ones(2, 2)
    return (
        *(ones, torch.tensor(1), torch.zeros(0, 3), torch.tensor([float("nan")] * 2), ones.to(torch.int8), ones.bool()),
        *(
            ones.to(torch.float8_e5m2),
            ones.to_sparse(),
            torch.empty(2, 2, device="meta"),
            torch.zeros(1).expand(1 << 40),
        ),
        *(
            nn.Parameter(ones),
            ones.to(torch.complex64),
            ones.t()[:1],
            {1: ones},
            [ones],
            (ones,),
            argparse.Namespace(a=1),
        ),
        *(torch.float32, torch.Size([2]), Path("x"), b"x", {1, 2}, 1j),
    )


def rezipped(data: bytes, change: Callable[[str, bytes], bytes], rng: random.Random) -> bytes:
    file, method = io.BytesIO(), rng.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


# the run


def alarmed(*_: Any) -> None:
    raise Hang


def run_one(name: str, kind: Kind, whole: bytes, i: int) -> str:
    """What comes of one input: ``read``, ``refused``, or the exception that must not come out."""
    kind.path.write_bytes(kind.mutate(whole, random.Random(f"{name} {i}")))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        kind.use()
    except ParamgenError as error:
        return "refused" if str(error).count("\n") == 0 else f"{name} {i}: more than one line: {error}"
    except Hang:
        return f"{name} {i}: hangs"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{name} {i}: {type(error).__name__}: {str(error)[:120]} ({Path(place.filename).name}:{place.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="inputs of each kind")
    parser.add_argument("--total", type=int, help="inputs of all kinds together, instead")
    parser.add_argument("--kinds", nargs="+", help="these alone")
    parser.add_argument("--only", type=int, help="this input alone, with its traceback")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    signal.signal(signal.SIGALRM, alarmed)
    bad = 0
    memory = Path("/dev/shm")  # a resumed journal is synced, and there are thousands
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        chosen = {name: kind for name, kind in kinds(Path(folder)).items() if name in (options.kinds or [name])}
        whole = {name: kind.path.read_bytes() for name, kind in chosen.items()}
        for kind in chosen.values():
            kind.use()  # the whole file is read, and what reading loads is loaded before memory is bounded
        if options.only is not None:
            for name, kind in chosen.items():
                kind.path.write_bytes(kind.mutate(whole[name], random.Random(f"{name} {options.only}")))
                kind.use()
            return 0
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
        count = options.count if options.total is None else -(-options.total // len(chosen))
        for name, kind in chosen.items():
            begun, found = time.process_time(), Counter(run_one(name, kind, whole[name], i) for i in range(count))
            read, refused = found.pop("read", 0), found.pop("refused", 0)
            foreign = count - read - refused
            bad += foreign
            seconds = time.process_time() - begun
            print(
                f"{name:14}{count:8} inputs{read:8} read{refused:8} refused{foreign:6} foreign{seconds:8.1f} s",
                flush=True,
            )
            for text, times in found.most_common(20):
                print(f"    {text}" + f" ({times} times)" * (times > 1), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{bad} foreign exceptions; peak memory {peak:,.0f} MiB")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
