"""A folder of generated networks: ``samples.json`` and one complete, loadable safetensors file a network.

Folders made by other programs need no ``samples.json``: any folder of safetensors files that fit the zoo can be read.
N: networks, P: parameters.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paramgen.core.counting import counted
from paramgen.core.intake import check_network
from paramgen.core.io import inside, read_json, read_tensors, regular_file, sha256
from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError

INDEX = "samples.json"
PARTIAL = "samples.partial"  # exists while networks are being written, and after a command that was interrupted
TRAJECTORY = "trajectory.safetensors"


@dataclass(frozen=True)
class SampleInfo:
    """Where generated networks come from; any field may be unknown.

    Args:
        generator: Name or class path of what made them.
        checkpoint: The generator's checkpoint file.
        checkpoint_sha256: Its sha256.
        zoo: Name of the zoo that it was trained on.
        zoo_sha256: Checksum of the networks of this zoo.
        seed: Seed of the draw.
        condition: What they were conditioned on.
        prompt: Scores that they were to reach, by name.
        start: Networks that they were to start from, as given.
        scheduler: Solver that was used, in diffusers' words; None where there is none.
        num_inference_steps: Its steps.
        temperature: Scale of the noise.
        guidance_scale: How far the condition was followed; None without a condition.
        fit_seconds: Seconds to train the generator.
        sample_seconds: Seconds to draw all of them.
        generator_params: Parameters of the generator.
        generator_bytes: What it takes to store it; see :meth:`paramgen.generators.base.ParameterGenerator.stored_bytes`.
        uses_task_data: Whether the task's data were used, in training (a behavioural loss) or to recalibrate batch norm, not only weights.
        command: The command that made them.
        fit_command: The command that made the generator.
        fit_config: All of its settings, as YAML.
        history: What the fit saw, name to ``[[step, value], ...]``; measured on the val split alone.
    """

    generator: str | None = None
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    zoo: str | None = None
    zoo_sha256: str | None = None
    seed: int | None = None
    condition: list[Any] | None = None
    prompt: dict[str, float] | None = None
    start: str | None = None
    scheduler: str | None = None
    num_inference_steps: int | None = None
    temperature: float | None = None
    guidance_scale: float | None = None
    fit_seconds: float | None = None
    sample_seconds: float | None = None
    generator_params: int | None = None
    generator_bytes: int | None = None
    uses_task_data: bool = False
    command: str | None = None
    fit_command: str | None = None
    fit_config: str | None = None
    history: dict[str, list[list[float]]] | None = None


@dataclass(frozen=True)
class Samples:
    """Generated networks as the evaluator takes them.

    Args:
        name: Name in the report.
        weights: (N, P) float32, the generated tensors in the zoo's order; may hold NaN.
        info: Where they come from.
        identity: (N,) which network of the zoo's train split conditioned each, if any.
        run: (N,) which run of the zoo's train split conditioned each, if any.
        total: How many networks the folder holds; N may be fewer.
        trajectory: (S, m, P) the first m networks on their way from noise to sample, if it was kept.
        task: N names of the tasks that they are for, if they are for tasks of a family.
    """

    name: str
    weights: Tensor
    info: SampleInfo
    identity: Tensor | None = None
    total: int = 0
    trajectory: Tensor | None = None
    run: Tensor | None = None
    task: list[str] | None = None


class GeneratedNetworks(list[StateDict]):
    """Complete state dicts, as ``load_state_dict(strict=True)`` takes them, and where they come from.

    Args:
        networks: N state dicts.
        info: Where they come from.
        identity: Which network of the zoo's train split conditioned each, if any.
        run: Which run of the zoo's train split conditioned each, if any.
    """

    def __init__(
        self,
        networks: Iterable[StateDict],
        info: SampleInfo | None = None,
        identity: Sequence[int | None] | None = None,
        run: Sequence[int | None] | None = None,
    ) -> None:
        super().__init__(networks)
        self.info, self.identity, self.run = info or SampleInfo(), identity, run

    def __repr__(self) -> str:
        made = f" by {self.info.generator}" if self.info.generator else ""
        return f"<{counted(len(self), 'network')}{made}>"


def is_torn(folder: str | Path) -> bool:
    """Whether a folder holds only the files of an interrupted command."""
    return (Path(folder) / PARTIAL).exists() and not (Path(folder) / INDEX).exists()


def read_samples(
    folder: str | Path, zoo: Zoo, limit: int | None = None, partial: bool = False, name: str | None = None
) -> Samples:
    """Read a folder of networks of the zoo's architecture.

    NaN and inf in the weights are kept: the evaluator counts them.

    Args:
        folder: With or without ``samples.json``.
        zoo: Says which tensors are generated, and what the rest must be.
        limit: Maximum number of networks to read.
        partial: Read what a stopped command had written too, rather than refuse it.
        name: Name in the report. Default: the folder's.

    Raises:
        ParamgenError: No such folder, an empty one, one that a stopped command left incomplete, a file that is missing, truncated or
            altered, or a network with other tensors or shapes than the zoo's; file and tensor are named.
    """
    path = Path(folder)
    info, listed = _listed(path, partial)
    selected = listed[:limit]
    for entry in selected:
        regular_file(inside(path, entry["file"]))  # check that all exist before memory is allocated
    base = zoo.base()
    weights = torch.empty(len(selected), zoo.spec.numel)
    for row, entry in zip(weights, selected, strict=True):
        row.copy_(zoo.spec.flatten(_read_network(path, entry, zoo, base)))
    identity, run = (_known(entry.get(name) for entry in selected) for name in ("identity", "run"))
    trajectory = _read_trajectory(inside(path, TRAJECTORY), zoo) if (path / INDEX).exists() else None
    task = [entry["task"] for entry in selected] if all(entry.get("task") for entry in selected) else None
    return Samples(name or path.resolve().name, weights, info, identity, len(listed), trajectory, run, task)


class SampledNetwork(NamedTuple):
    """One network of a folder.

    Args:
        file: Its file's name.
        state: Complete state dict; may hold NaN.
    """

    file: str
    state: StateDict


def each_network(folder: str | Path, zoo: Zoo, limit: int | None = None) -> Iterator[SampledNetwork]:
    """Complete state dicts of a folder of networks of the zoo's architecture, one at a time; see :func:`read_samples`.

    What a file leaves out, such as the second name of a tied tensor, is taken from the zoo.

    Raises:
        ParamgenError: As :func:`read_samples`.
    """
    path, base = Path(folder), zoo.base()
    for entry in _listed(path)[1][:limit]:
        state = _read_network(path, entry, zoo, base)
        tied = {name: state[canonical] for name, canonical in zoo.spec.aliases.items()}
        yield SampledNetwork(entry["file"], {**base, **tied, **state})


def samples_of(networks: Sequence[Mapping[str, Tensor]], zoo: Zoo, name: str, limit: int | None = None) -> Samples:
    """Networks in memory as the evaluator takes them; NaN and inf in the weights are kept.

    Args:
        networks: Complete state dicts of the zoo's architecture, or its generated tensors alone.
        zoo: Says which tensors are generated, and what the rest must be.
        name: Name in the report.
        limit: Maximum number of networks to take.

    Raises:
        ParamgenError: No network, or one with other tensors or shapes than the zoo's; network and tensor are named.
    """
    selected = list(networks)[:limit]
    if not selected:
        raise ParamgenError(f"{name} holds no networks: N = 0, expected at least 1")
    base, weights = zoo.base(), torch.empty(len(selected), zoo.spec.numel)
    for i, (row, state) in enumerate(zip(weights, selected, strict=True)):
        row.copy_(zoo.spec.flatten(_checked(state, zoo, base, f"network {i} of {name}")))
    if not isinstance(networks, GeneratedNetworks):
        return Samples(name, weights, SampleInfo(), total=len(networks))
    identity, run = (None if known is None else _known(known[:limit]) for known in (networks.identity, networks.run))
    return Samples(name, weights, networks.info, identity, len(networks), run=run)


def samples_folder(path: str | Path) -> Path:
    """A folder of samples.

    Raises:
        ParamgenError: There is none.
    """
    if not (folder := Path(path)).is_dir():
        raise ParamgenError(f"samples folder not found: {str(path)!r}")
    return folder


def _known(identities: Iterable[int | None]) -> Tensor | None:
    listed = list(identities)
    return None if None in listed else torch.tensor(listed)


def _listed(path: Path, partial: bool = False) -> tuple[SampleInfo, list[dict[str, Any]]]:
    """What a folder of samples says of itself, and its networks."""
    samples_folder(path)
    if is_torn(path) and not partial:
        raise ParamgenError(
            f"{path} is incomplete: the command that wrote it was stopped; rerun paramgen sample, or evaluate the partial output "
            "(--partial true)"
        )
    if (path / INDEX).exists():
        info, listed = read_samples_index(path / INDEX)
    else:
        files = [p.name for p in sorted(path.glob("*.safetensors")) if p.name != TRAJECTORY]
        info, listed = SampleInfo(), [{"file": name} for name in files]
    if not listed:
        raise ParamgenError(f"{path} holds no networks: expected {INDEX} or *.safetensors{_others(path)}")
    return info, listed


def read_samples_index(path: Path) -> tuple[SampleInfo, list[dict[str, Any]]]:
    """What ``samples.json`` says of all networks, and of each.

    Raises:
        ParamgenError: A damaged index, or one that names a file twice.
    """
    saved = read_json(path, "samples")
    counts = Counter(entry["file"] for entry in saved["networks"])
    if twice := next((file for file, count in counts.items() if count > 1), None):
        raise ParamgenError(f"{path}: networks names the file {twice!r} twice")
    names = {f.name for f in fields(SampleInfo)}
    return SampleInfo(**{k: v for k, v in saved.items() if k in names}), saved["networks"]


def _read_trajectory(path: Path, zoo: Zoo) -> Tensor | None:
    if not path.exists():
        return None
    trajectory = read_tensors(path).get("trajectory")
    if trajectory is None or trajectory.dim() != 3 or trajectory.shape[2] != zoo.spec.numel:
        got = "no tensor 'trajectory'" if trajectory is None else f"a trajectory of shape {tuple(trajectory.shape)}"
        raise ParamgenError(f"{path} holds {got}, expected (states, networks, {zoo.spec.numel})")
    return trajectory


def _read_network(folder: Path, entry: dict[str, Any], zoo: Zoo, base: StateDict) -> Mapping[str, Tensor]:
    path = inside(folder, entry["file"])
    state = read_tensors(path)  # a truncated file is named here
    if entry.get("sha256") and sha256(path) != entry["sha256"]:
        raise ParamgenError(f"{path}: checksum mismatch with {INDEX}: the file was modified")
    return _checked(state, zoo, base, str(path))


def _checked(state: Mapping[str, Tensor], zoo: Zoo, base: StateDict, where: str) -> Mapping[str, Tensor]:
    """A network, after a check that it is of the zoo's architecture."""
    zoo.spec.check(state, where, finite=False)
    check_network(state, zoo.spec, base, where, rtol=1e-3)  # other programs may have stored the base in half precision
    return state


def _others(path: Path) -> str:
    pickles = [p.name for p in sorted(path.iterdir()) if p.suffix in (".pt", ".pth", ".ckpt", ".bin")]
    return f"; it has {', '.join(pickles[:3])}: save them as safetensors first" if pickles else ""
