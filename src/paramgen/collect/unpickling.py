"""The process of ``paramgen zoo convert``: reads pickles with the code that they name, and writes their tensors as safetensors."""

import json
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paramgen.collect.converting import JOB, REPORT
from paramgen.core.io import write_json, write_tensors
from paramgen.core.params import StateDict, is_extra_state
from paramgen.core.weight_files import find_state_dict
from paramgen.errors import ParamgenError, one_line


def run_job(folder: Path) -> None:
    """Convert the files that a folder's job names, and write a report there."""
    job: dict[str, Any] = json.loads((folder / JOB).read_text(encoding="utf-8"))
    report: dict[str, str | None] = {}
    for name in job["files"]:
        path = Path(name)
        try:
            write_tensors(Path(job["out"]) / f"{path.stem}.safetensors", weights_of(path, job["key"]))
            report[path.name] = None
        except Exception as error:  # the files' code may raise anything
            report[path.name] = (
                f"{type(error).__name__}: {one_line(error)}" if not isinstance(error, ParamgenError) else str(error)
            )
    write_json(folder / REPORT, report)


def weights_of(path: Path, key: str | None) -> StateDict:
    """The tensors of a pickle, whose code runs.

    Raises:
        ParamgenError: It holds no state dict, or several and no `key`.
    """
    if path.suffix in (".pkl", ".pickle"):
        with path.open("rb") as file:
            saved = pickle.load(file)
    else:
        saved = torch.load(path, map_location="cpu", weights_only=False)
    saved = _plain(saved)
    if not isinstance(saved, Mapping):
        raise ParamgenError(f"{path} holds a {type(saved).__name__}, expected a network or a state dict")
    state = find_state_dict(saved, str(path), key)
    tensors = {
        name: value.detach() for name, value in state.items() if isinstance(value, Tensor) and not is_extra_state(name)
    }
    if not tensors:
        raise ParamgenError(f"{path} holds no tensors")
    return tensors


def _plain(value: Any) -> Any:
    """Networks in a checkpoint as their state dicts."""
    if isinstance(value, nn.Module):
        return dict(value.state_dict())
    if isinstance(value, Mapping):
        return {key: dict(item.state_dict()) if isinstance(item, nn.Module) else item for key, item in value.items()}
    return value


if __name__ == "__main__":
    run_job(Path(sys.argv[1]))
