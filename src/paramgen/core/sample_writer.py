"""Writing a folder of generated networks: each network in turn, and ``samples.json`` last.

N: networks, P: parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from paramgen.core.io import inside, sync_folder, write_json, write_tensors
from paramgen.core.locks import locked
from paramgen.core.samples import INDEX, PARTIAL, TRAJECTORY, SampleInfo, is_torn, read_samples_index
from paramgen.errors import ParamgenError

SAMPLES_FORMAT = 1


@dataclass(frozen=True)
class PerNetwork:
    """What is known of each network of a folder; None where it is not known.

    Args:
        identity: Which network of the zoo's train split conditioned each.
        run: Which run of the zoo's train split conditioned each.
        task: Which task of a family each is for.
        row: Of a shard: the place of each among the networks of all shards.
    """

    identity: Sequence[int | None] | None = None
    run: Sequence[int | None] | None = None
    task: Sequence[str] | None = None
    row: Sequence[int] | None = None

    def entries(self, n: int) -> list[dict[str, Any]]:
        """The part of it in ``samples.json``, for each of n networks."""
        known = {"identity": self.identity, "run": self.run, "task": self.task}
        if self.row is not None:
            known["row"] = self.row
        for name, values in known.items():
            if values is not None and len(values) != n:
                raise ValueError(f"expected one {name} a network, got {len(values)} for {n}")
        return [{name: None if values is None else values[i] for name, values in known.items()} for i in range(n)]


def write_samples(
    folder: str | Path,
    networks: Sequence[Mapping[str, Tensor]],
    info: SampleInfo,
    each: PerNetwork | None = None,
    overwrite: bool = False,
    trajectory: Tensor | None = None,
) -> Path:
    """Write complete state dicts and ``samples.json``, the latter last; files of an interrupted command are deleted first.

    Args:
        folder: Made if it does not exist.
        networks: Complete state dicts, as ``load_state_dict(strict=True)`` takes them.
        info: Where they come from.
        each: What is known of each network.
        overwrite: Replace samples that are already there.
        trajectory: (S, m, P) the first m networks on their way from noise to sample.

    Raises:
        ParamgenError: No network, samples already there, another process that writes to the folder, or a full disk.
    """
    path = Path(folder)
    if not networks:
        raise ParamgenError(f"no network to write to {path}: N = 0, expected at least 1")
    known = (each or PerNetwork()).entries(len(networks))
    refuse_samples(path, overwrite)
    with locked(path):
        begin_samples(path, len(networks))
        listed = []
        for i, (state, entry) in enumerate(zip(networks, known, strict=True)):
            file = file_name(i, len(networks))
            digest = write_tensors(path / file, state, sync=False)
            listed.append({"file": file, "sha256": digest, **entry})
        if trajectory is not None:
            write_tensors(path / TRAJECTORY, {"trajectory": trajectory})
        sync_folder(path)  # the index is the last to appear
        write_json(path / INDEX, {"format": SAMPLES_FORMAT, **asdict(info), "networks": listed})
        (path / PARTIAL).unlink()
    return path


def begin_samples(folder: Path, n: int) -> None:
    """Mark a folder as incomplete, and delete the samples in it: all that its index lists, or what an interrupted command left.

    Args:
        folder: Made if it does not exist.
        n: How many networks will be written.
    """
    if is_torn(folder):
        networks = [*folder.glob("network_*.safetensors")]
    else:
        listed = read_samples_index(folder / INDEX)[1] if (folder / INDEX).exists() else []
        networks = [inside(folder, entry["file"]) for entry in listed]
    write_json(folder / PARTIAL, {"networks": n})
    (folder / INDEX).unlink(missing_ok=True)  # first: without it, the remaining files count as incomplete
    for file in (folder / TRAJECTORY, *networks):
        file.unlink(missing_ok=True)


def file_name(i: int, n: int) -> str:
    """Name of the file of network i of n."""
    width = max(4, len(str(n - 1)))
    return f"network_{i:0{width}d}.safetensors"


def refuse_samples(folder: str | Path, overwrite: bool = False) -> None:
    """Refuse a folder that networks cannot be written to, before any is drawn.

    Args:
        folder: The folder.
        overwrite: It may hold samples.

    Raises:
        ParamgenError: It holds a zoo, or samples already, or is a file.
    """
    path = Path(folder)
    if (path / "zoo.json").exists():
        raise ParamgenError(f"{path} holds a zoo; choose another folder for the samples")
    if (path / INDEX).exists() and not overwrite:
        raise ParamgenError(f"{path} already holds samples; choose another folder or overwrite them (--overwrite true)")
    if path.exists() and not path.is_dir():
        raise ParamgenError(f"{path} is a file; choose a folder for the samples")
