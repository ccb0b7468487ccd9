"""``paramgen export``: networks in the forms that other libraries load."""

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from paramgen.core.command_line import command_line
from paramgen.core.counting import counted
from paramgen.core.io import inside, read_json, replace_folder, write_json
from paramgen.core.locks import LOCK, temporary_name
from paramgen.errors import ParamgenError, require_positive
from paramgen.export.formats import FORMATS, writer_of
from paramgen.export.source import ExportSource, NamedState, open_export

EXPORT_INDEX = "export.json"
_log = logging.getLogger(__name__)


def main(
    format: str,
    samples: str | None = None,
    zoo: str | None = None,
    out: str = "exported",
    split: Literal["train", "val", "heldout"] | None = None,
    n: int | None = None,
    overwrite: bool = False,
    trust: bool = False,
) -> Path:
    """Write generated networks, or those of a zoo, in the form that another library loads.

    Networks with NaN or infinite values are skipped and named.

    Args:
        format: safetensors, pth, timm, torchvision, transformers, diffusers, peft or onnx.
        samples: Output folder of `paramgen sample`, or any folder of safetensors that fit the zoo. Default: export the zoo's networks.
        zoo: The zoo that the samples' generator was fitted on. Default: the one that samples.json names.
        out: Output folder: one file or folder per network, and export.json.
        split: Without samples: export only this split of the zoo.
        n: Maximum number of networks. Default: all.
        overwrite: Replace an existing output folder of this command.
        trust: Run code of classes that these files name and that are not part of paramgen. Use only for files from people you trust.

    Raises:
        ParamgenError: An unknown format, networks that do not belong to the library, a library that is not installed, nothing to
            export, or an existing folder.
    """
    command = command_line("paramgen export", main, locals())
    target = Path(out)
    require_positive(n=n)
    _refuse_existing(target, overwrite)
    if format not in FORMATS:  # before files are read
        writer_of(format, None)  # type: ignore[arg-type]
    source = open_export(samples, zoo, split, n, trust)
    writer = writer_of(format, source)
    target.mkdir(parents=True, exist_ok=True)
    unfinished = temporary_name(target / "networks")
    try:
        names = [writer.write(network, unfinished / network.name).name for network in _finite(source)]
        if not names:
            raise ParamgenError(f"{source.what} holds no network to export")
        how = _with_paths(writer.how, {"{path}": (target / names[0]).as_posix(), "{parent}": target.as_posix()})
        about = {"format": format, "network": source.zoo.task_config and source.network_name, "zoo": source.zoo.name}
        _move(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    write_json(target / EXPORT_INDEX, {**about, "samples": samples, "command": command, "networks": names, "load": how})
    print(f"{counted(len(names), 'network')} for {format} in {out}\nto load one:\n  " + how.replace("\n", "\n  "))
    return target


def _with_paths(code: str, paths: Mapping[str, str]) -> str:
    """Python code with paths in its strings, which are quoted anew: a path may hold a quote."""

    def quoted(literal: re.Match[str]) -> str:
        text = literal[1]
        for name, path in paths.items():
            text = text.replace(name, path)
        return repr(text)

    return re.sub(r"'([^'\n]*\{(?:path|parent)\}[^'\n]*)'", quoted, code)


def _finite(source: ExportSource) -> Iterator[NamedState]:
    """The networks without NaN and infinite values; the others are named in the log."""
    for network in source.networks():
        bad = next((name for name, tensor in network.state.items() if not torch.isfinite(tensor).all()), None)
        if bad is None:
            yield network
        else:
            _log.warning("%s is skipped: tensor %r holds NaN or infinite values", network.name, bad)


def _move(folder: Path, target: Path) -> None:
    """Move what a folder holds to another one, in place of what this command wrote there before."""
    if (target / EXPORT_INDEX).exists():
        before: dict[str, Any] = read_json(target / EXPORT_INDEX)
        (target / EXPORT_INDEX).unlink()  # first: without it the folder is not taken for a complete one
        for old in [inside(target, str(name)) for name in before.get("networks", [])]:
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    for path in sorted(folder.iterdir()):
        replace_folder(path, target / path.name)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise ParamgenError(f"{target} is a file; choose a folder")
    if not target.is_dir() or not {path.name for path in target.iterdir()} - {LOCK}:
        return
    if not overwrite:
        raise ParamgenError(f"{target} exists and is not empty; choose another folder, or add --overwrite true")
    if not (target / EXPORT_INDEX).exists():
        raise ParamgenError(f"{target} holds files that `paramgen export` did not write; choose another folder")
