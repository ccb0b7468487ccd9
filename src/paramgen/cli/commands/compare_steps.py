"""The steps of a comparison: a zoo, fits, samples, an evaluation. A step is skipped if its result from the same settings exists.

Every step records what made its result (:mod:`paramgen.core.made`), with the checksum of what it was made from, so that a change of
a zoo reaches its fits, and a change of a fit its samples and their evaluation.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from paramgen import __version__
from paramgen.cli.commands import evaluate, merge, sample, zoo
from paramgen.cli.dispatch import arguments_of, parsed_values, parser_of, run
from paramgen.cli.given import read_config
from paramgen.collect import multi, single
from paramgen.core.arguments import Plain
from paramgen.core.command_line import plain_value, words
from paramgen.core.hub import local_checkpoint
from paramgen.core.io import fingerprint, remove, sha256
from paramgen.core.locks import locked
from paramgen.core.made import RecordedResult
from paramgen.core.sample_writer import write_samples
from paramgen.core.samples import INDEX, SampleInfo
from paramgen.core.zoo import Zoo
from paramgen.errors import DivergedError, ParamgenError, UnscoredError
from paramgen.evaluation.merging import MERGED
from paramgen.evaluation.pool import Pool
from paramgen.evaluation.unseen import many_tasks
from paramgen.evaluation.weight_baselines import generate

_log = logging.getLogger(__name__)
CHANGES = ("align", "prune", "quantise")  # verbs of ``paramgen zoo`` that make a zoo of another one
_QUIET = {"trainer.enable_model_summary": False}  # one of many fits


@dataclass(frozen=True)
class ZooSource:
    """Where a zoo comes from; exactly one of `collect`, `collect_tasks`, `align`, `prune`, `quantise` and `path`.

    Args:
        collect: Config of ``paramgen collect``; with several seeds, each has its own zoo.
        collect_tasks: Config of ``paramgen collect_tasks``; the seed is the family's too where it takes one.
        align: Name of another zoo of this comparison, to be aligned.
        prune: Name of another zoo of this comparison, to be pruned.
        quantise: Name of another zoo of this comparison, to be quantised.
        path: An existing zoo.
        arguments: Further arguments of the command that makes it, for example ``{runs: 20}``.
    """

    collect: str | None = None
    collect_tasks: str | None = None
    align: str | None = None
    prune: str | None = None
    quantise: str | None = None
    path: str | None = None
    arguments: dict[str, Plain] = field(default_factory=dict)

    @property
    def changed(self) -> tuple[str, str] | None:
        """The verb of ``paramgen zoo`` and the name of the other zoo of this comparison that it changes, if it does."""
        verbs = {verb: getattr(self, verb) for verb in CHANGES}
        return next(((verb, name) for verb, name in verbs.items() if name is not None), None)

    def given(self, arguments: Mapping[str, Plain]) -> "ZooSource":
        """The same source; if it is collected, with further arguments where its own do not say otherwise."""
        collected = self.collect or self.collect_tasks
        return replace(self, arguments={**arguments, **self.arguments}) if collected else self


@dataclass(frozen=True)
class GeneratorSource:
    """Where a generator's networks come from; exactly one of `fit`, `fit_of`, `ckpt_path`, `samples`, `baseline` and `merge`.

    Args:
        fit: Config of ``paramgen fit``.
        fit_of: Another generator of this comparison, whose fit is sampled with other settings.
        ckpt_path: A checkpoint.
        samples: A folder of networks, from any program.
        baseline: A baseline, also with a number that is not among the reports' baselines: ``soup-100``, ``noise-0.01``.
        merge: A method of ``paramgen merge``, which merges 16 random train networks into each of its own.
        arguments: Further arguments of ``fit`` or ``merge``, for example ``{model.lr: 0.001}`` or ``{scale: val}``.
        sample: Further arguments of ``sample``, for example ``{num_inference_steps: 20}``.
        zoos: Use it only on these zoos. Default: all.
    """

    fit: str | None = None
    fit_of: str | None = None
    ckpt_path: str | None = None
    samples: str | None = None
    baseline: str | None = None
    merge: str | None = None
    arguments: dict[str, Plain] = field(default_factory=dict)
    sample: dict[str, Plain] = field(default_factory=dict)
    zoos: list[str] = field(default_factory=list)


def make_zoo(
    folder: Path, source: ZooSource, others: Mapping[str, Zoo], seed: int, redo: bool = False, trust: bool = False
) -> Zoo:
    """The zoo of a source, made in a folder unless it exists.

    Args:
        folder: Of this zoo and seed.
        source: Where it comes from.
        others: The existing zoos of this seed, by name.
        seed: Seed of the zoo.
        redo: Delete a zoo of other settings and make it again.
        trust: Run the code of classes that it names and that are not part of paramgen.

    Raises:
        ParamgenError: The folder holds a zoo of other settings, and not `redo`; or what the command raises.
    """
    if source.path:
        return Zoo(source.path, trust)
    target = folder / "zoo"
    function: Callable[..., Any]
    if source.changed:
        verb, name = source.changed
        if name not in others:
            raise ParamgenError(f"zoo {name!r} must come before {folder.name!r}, which is made from it by {verb}")
        function = zoo.COMMANDS[verb]
        line = words({**source.arguments, "zoo": str(others[name].path), "out": str(target), "trust": trust})
        arguments = arguments_of(function, f"paramgen zoo {verb}", "", line)
        settings: dict[str, Any] = {"command": verb, "zoo": _digest(others[name]), **source.arguments}
    else:
        command, function = ("collect", single.main) if source.collect else ("collect_tasks", multi.main)
        arguments = parsed_values(*collecting(source, seed, target))
        plain = {k: plain_value(v, defaults=True) for k, v in arguments.items() if k != "out"}
        settings = {"command": command, **plain}
    record = RecordedResult(target / "zoo.json", settings)
    status = record.status()
    if status.state == "other" and not redo:
        raise ParamgenError(
            f"{target} {status.reason}: rerun with --redo true to make it again, or choose another --out"
        )
    _do(record, lambda: function(**arguments))
    return Zoo(target, trust)


def collecting(source: ZooSource, seed: int, target: Path) -> tuple[Any, list[str]]:
    """The parser of a source's command and the command line; the seed is a family's too where it takes one."""
    command, function = ("collect", single.main) if source.collect else ("collect_tasks", multi.main)
    parser = parser_of(function, f"paramgen {command}", "zoo")
    given = {"seed": seed, **source.arguments, "out": str(target)}
    line = ["--config", str(source.collect or source.collect_tasks), *words(given)]
    if source.collect_tasks:
        module_path, _, name = str(parser.parse_args(line).family.class_path).rpartition(".")
        if "seed" in signature(getattr(import_module(module_path), name)).parameters:
            line = [*line[:2], *words({"family.init_args.seed": seed, **given})]
    return parser, line


def draw(
    folder: Path,
    opened: Zoo,
    name: str,
    generators: Mapping[str, GeneratorSource],
    requested: Mapping[str, Any],
    seed: int,
) -> Path:
    """The folder of a generator's networks, fitted and drawn unless they exist.

    Args:
        folder: Of this zoo and seed.
        opened: The zoo.
        name: Of the generator.
        generators: All of the comparison.
        requested: Arguments of ``sample`` that are the same for all: how many networks, or for which tasks.
        seed: Of fit and samples.
    """
    source, target = generators[name], folder / "samples" / name
    if source.samples:
        return Path(source.samples)
    if source.baseline:
        _draw_baseline(source.baseline, name, opened, requested, seed, target)
    elif source.merge:
        _draw_merged(source, opened, requested, seed, target)
    elif source.ckpt_path:
        _draw_from(Path(local_checkpoint(source.ckpt_path)), source, opened, requested, seed, target)
    else:
        fitted = source.fit_of or name
        checkpoint = _fit(folder / "fits" / fitted, opened, generators[fitted], seed)
        _draw_from(checkpoint, source, opened, requested, seed, target)
    return target


def _draw_from(
    checkpoint: Path, source: GeneratorSource, opened: Zoo, requested: Mapping[str, Any], seed: int, target: Path
) -> None:
    """Networks of a fitted generator."""
    where = {"ckpt_path": str(checkpoint), "out": str(target), "trust": opened.trust}
    line = words({"seed": seed, **source.sample, **requested, **where})
    arguments = arguments_of(sample.main, "paramgen sample", "", line)
    settings = {k: v for k, v in arguments.items() if k not in ("ckpt_path", "out", "zoo", "overwrite", "trust")}
    settings |= {"checkpoint": fingerprint(checkpoint), "zoo": _digest(opened) if arguments["zoo"] else None}
    _do(RecordedResult(target / INDEX, settings), lambda: sample.main(**{**arguments, "overwrite": True}))


def _draw_merged(source: GeneratorSource, opened: Zoo, requested: Mapping[str, Any], seed: int, target: Path) -> None:
    """Networks that are merged from the zoo's."""
    given = {"networks": MERGED, "seed": seed, **source.arguments, "method": source.merge, "n": requested.get("n", 1)}
    line = words({**given, "zoo": str(opened.path), "out": str(target), "trust": opened.trust})
    arguments = arguments_of(merge.main, "paramgen merge", "", line)
    settings = {k: v for k, v in arguments.items() if k not in ("out", "overwrite", "trust")}
    settings["zoo"] = _digest(opened)
    _do(RecordedResult(target / INDEX, settings), lambda: merge.main(**{**arguments, "overwrite": True}))


def _draw_baseline(
    baseline: str, name: str, opened: Zoo, requested: Mapping[str, Any], seed: int, target: Path
) -> None:
    """Networks of a baseline."""
    if many_tasks(opened):
        raise ParamgenError(f"generator {name!r} is a baseline of zoos of one task; zoo {opened.name!r} has several")
    n = requested["n"]
    settings = {"baseline": baseline, "n": n, "seed": seed, "zoo": _digest(opened)}
    _do(RecordedResult(target / INDEX, settings), lambda: draw_baseline(baseline, opened, n, seed, target))


def draw_baseline(name: str, opened: Zoo, n: int, seed: int, out: Path) -> None:
    """Draw networks with a baseline and write them as samples.

    Raises:
        ParamgenError: No such baseline, or one that chooses by scores that the zoo does not record.
    """
    train = opened.indices("train")
    goodness = opened.goodness(train, "train")
    if name == "kde" and goodness is None:
        raise ParamgenError(f"kde keeps the best on train, but zoo {opened.name!r} records no train scores")
    begun, start = time.perf_counter(), opened.start()
    pool = Pool(
        opened.matrix(train),
        goodness,
        tuple(t.numel for t in opened.spec.tensors),
        start=None if start is None else opened.spec.flatten(start),
    )
    weights = generate(name, pool, opened.spec, n, seed)  # (n, P)
    seconds = time.perf_counter() - begun
    info = SampleInfo(generator=name, zoo=opened.name, zoo_sha256=opened.sha256, seed=seed, sample_seconds=seconds)
    networks = [opened.complete(opened.spec.unflatten(row)) for row in weights]
    write_samples(out, networks, info, overwrite=True)


def _fit(folder: Path, opened: Zoo, source: GeneratorSource, seed: int) -> Path:
    """The checkpoint of a fit."""
    seeds = {"seed_everything": seed, "data.seed": seed}
    settings = {**read_config(str(source.fit)), **seeds, **source.arguments, "zoo": _digest(opened)}
    where = {"data.zoo": str(opened.path), "data.trust": opened.trust, "checkpoint.dirpath": str(folder)}
    line = ["fit", "--config", str(source.fit), *words({**_QUIET, **seeds, **source.arguments, **where})]
    record = folder.with_name(f"{folder.name}.made.json")  # Lightning warns of a folder with anything in it
    result = RecordedResult(folder / "last.ckpt", settings, whole=False, record=record)
    try:
        _do(result, lambda: run(line), lock=False)
    except DivergedError as error:
        raise DivergedError(f"generator {folder.name!r}: {error}") from error
    return result.path


def measure(folder: Path, opened: Zoo, samples: list[Path], options: Mapping[str, Any], device: str) -> None:
    """Evaluate one zoo and seed: a report and ``results.json`` in the folder.

    Args:
        folder: Of this zoo and seed.
        opened: The zoo.
        samples: Folders of networks.
        options: Arguments of ``evaluate``.
        device: Where networks run; another device does not repeat the evaluation.

    Raises:
        UnscoredError: After the report is written: a scoring function raised an error on some networks. The next call evaluates again.
    """
    digests = {_name(path, folder): _digest_of_samples(path) for path in samples}
    settings = {**options, "zoo": _digest(opened), "samples": digests, "paramgen": __version__}
    record = RecordedResult(folder / "results.json", settings)
    arguments = {"zoo": str(opened.path), "samples": [str(path) for path in samples], "out": str(folder), **options}
    arguments |= {"device": device, "trust": opened.trust}
    try:
        _do(record, lambda: evaluate.main(**arguments), alone=False)
    except UnscoredError:
        record.forget()
        raise


def _do(record: RecordedResult, step: Callable[[], Any], alone: bool = True, lock: bool = True) -> None:
    """Do a step unless its result exists; a result of other settings is deleted first.

    Args:
        record: The result and its settings.
        step: Makes the result.
        alone: The result's folder holds nothing else.
        lock: Lock the folder during the step.
    """
    status, folder = record.status(), record.path.parent
    if status.state == "same":
        with locked(folder):  # removes files of a process that was killed after its last file
            if not status.recorded:
                record.finish()
        return
    if status.state == "other":
        _log.info("%s %s: made again", folder, status.reason)
        remove(record.path)  # first, so that it is never mistaken for the new one
    if status.state == "other" and alone:
        shutil.rmtree(folder, ignore_errors=True)
    with locked(folder) if lock else nullcontext():
        record.begin()
        step()
        record.finish()


def _digest(opened: Zoo) -> str:
    """Checksum of ``zoo.json``, which has those of all its networks."""
    return sha256(opened.path / "zoo.json")


def _name(path: Path, folder: Path) -> str:
    """A folder of samples by its name in the settings, which does not depend on the comparison's location."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _digest_of_samples(folder: Path) -> str:
    """Checksum of ``samples.json``, which has those of all networks; for folders of other programs, the checksum of their files."""
    if (folder / INDEX).exists():
        return sha256(folder / INDEX)
    files = [f"{path.name} {sha256(path)}" for path in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()
