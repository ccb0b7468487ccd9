"""Folders of Ray Tune, as ModelZoos, MultiZoo and the ViT zoos have them.

``RUN/checkpoint_N/checkpoints`` is the state dict of run RUN after N epochs. ``RUN/result.json`` holds a line of JSON per epoch with scores
and the run's ``config``, ``RUN/params.json`` the same config. ``finetuning/START/RUN`` is fine-tuned from START.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paramgen.collect.readers.found import Found, Layout, Value
from paramgen.core.io import cannot_read, read_json, regular_file
from paramgen.core.schema import parse_json
from paramgen.core.weight_files import natural_order, read_state_dict
from paramgen.errors import ParamgenError

_CHECKPOINT = re.compile(r"checkpoint_(\d+)")
_WEIGHTS = "checkpoints"  # a file of torch.save without a suffix
_DEPTH = 3  # of zoos in one folder, each with runs in folders named after their start
_RESULTS, _CONFIGS = "result.json", ("params.json", "config.json")
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "eval": "val"}
_SCORE = re.compile(r"([a-z]+)[_/](.+)", re.IGNORECASE)
_FINETUNED = "finetuning"  # a folder of folders that are named after the network that runs started from
_PLACES = {  # words in the names of settings of one computer, which do not describe a network
    *("path", "paths", "dir", "directory", "dump", "root", "file", "files", "log", "logger"),
    *("cuda", "device", "devices", "gpu", "gpus", "cpu", "cpus", "worker", "workers"),
}


class RayTune(Layout):
    """Runs of Ray Tune: folders with ``checkpoint_N/checkpoints`` and ``result.json``."""

    name = "ray"
    what = "a folder of run folders with checkpoint_N/checkpoints in them, and result.json"

    @staticmethod
    def recognises(source: Path) -> bool:
        """Whether one of its folders is a run."""
        return source.is_dir() and next(_runs(source), None) is not None

    def find(self) -> Iterator[Found]:
        """All checkpoints of all runs, in natural order."""
        runs = sorted(_runs(self.source), key=lambda run: natural_order(run.relative_to(self.source).as_posix()))
        for run in runs:
            yield from self._run(run)

    def read(self, found: Found) -> Mapping[str, Any]:
        """One checkpoint."""
        return read_state_dict(found.path, self.reading.key)

    def _run(self, run: Path) -> Iterator[Found]:
        name = run.relative_to(self.source).as_posix()
        steps = {
            int(m[1]): p for p in run.iterdir() if (m := _CHECKPOINT.fullmatch(p.name)) and (p / _WEIGHTS).is_file()
        }
        lines = _lines(run / _RESULTS)
        if not self.notes and any(key.startswith("test") for line in lines[:1] for key in line):
            self.notes.append("scores on test splits are dropped")
        config = next((line["config"] for line in lines if isinstance(line.get("config"), dict)), None) or _config(run)
        flat = dict(_flat(config))
        tuned = run.parent != self.source and run.parent.parent.resolve().name == _FINETUNED
        for step, folder in sorted(steps.items()):
            yield Found(
                f"{name}/{folder.name}",
                folder / _WEIGHTS,
                run=name,
                step=step,
                seed=int(seed) if isinstance(seed := flat.get("seed"), int | float) else 0,
                parent=run.parent.name if tuned else None,
                condition={key: value for key, value in flat.items() if _describes(key)},
                scores=_scores(_line_of(lines, step, has_start=0 in steps)),
            )


def _runs(source: Path) -> Iterator[Path]:
    """Folders with checkpoints, at most :data:`_DEPTH` below the source."""
    waiting = [(source, 0)]
    while waiting:
        folder, depth = waiting.pop()
        folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        if any(_CHECKPOINT.fullmatch(path.name) and (path / _WEIGHTS).is_file() for path in folders):
            yield folder
        elif depth < _DEPTH:
            waiting += [(path, depth + 1) for path in folders]


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a result.json, which is missing in some zoos."""
    if not path.exists():
        return []
    regular_file(path)
    try:
        texts = path.read_bytes().splitlines()
    except OSError as error:
        raise cannot_read(path, error) from error
    lines = [parse_json(_finite(text), f"{path}, line {i}") for i, text in enumerate(texts, 1) if text.strip()]
    if not all(isinstance(line, dict) for line in lines):
        raise ParamgenError(f"{path}: expected an object in each line")
    return lines


def _finite(text: bytes) -> bytes:
    """Ray writes NaN and Infinity as Python does; they are no scores."""
    return re.sub(rb"(?<=[:,\[])\s*-?(NaN|Infinity)(?=\s*[,\]}])", b" null", text)


def _config(run: Path) -> Any:
    return next((read_json(run / name) for name in _CONFIGS if (run / name).is_file()), {})


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Value]]:
    """Numbers and words of a nested config, by names joined by dots."""
    for key, value in config.items() if isinstance(config, dict) else ():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, bool | str):
            yield name, str(value)
        elif isinstance(value, int | float):
            yield name, float(value)


def _describes(key: str) -> bool:
    """Whether a setting may change a trained network: no seed, path or device."""
    return not {"seed", *_PLACES} & {*re.split(r"[^a-z]+", key.lower())}


def _line_of(lines: list[dict[str, Any]], step: int, has_start: bool) -> Mapping[str, Any]:
    """The scores at a step: the line that says so, else the one at its place; a run that saved its start has a line for it."""
    for line in lines:
        if line.get("training_iteration") == step:
            return line
    place = step if has_start and len(lines) > step else step - 1
    unnamed = all("training_iteration" not in line for line in lines)
    return lines[place] if unnamed and 0 <= place < len(lines) else {}


def _scores(line: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Scores on train and val; those on test are left out."""
    found: dict[str, dict[str, float]] = {}
    for key, value in line.items():
        match = _SCORE.fullmatch(key)
        if (
            match
            and (split := _SPLITS.get(match[1].lower()))
            and isinstance(value, int | float)
            and not isinstance(value, bool)
        ):
            found.setdefault(split, {})["accuracy" if match[2].lower() == "acc" else match[2]] = float(value)
    return found
