"""Condition encoders: vectors that describe tasks to generators.

A zoo's tasks are encoded once, when it is collected; its entries carry the numbers (``condition``), ``zoo.json`` how they were made
(``condition: {kind, …, dim}``), and :func:`load_encoder` makes the encoder again, for tasks that the zoo has not seen.

T: tasks. C: numbers of a condition. m: images.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.core.arguments import check_arguments
from paramgen.core.counting import counted
from paramgen.core.io import read_tensors
from paramgen.core.trust import HOW, SOMEWHERE, UntrustedError
from paramgen.errors import ParamgenError, did_you_mean, first_line, require_choice, require_positive
from paramgen.tasks.base import Description
from paramgen.tasks.published import require_timm_weights

CLIP = "vit_base_patch32_clip_224"
Space = Literal["pixels", "features"]


class ConditionEncoder(ABC):
    """Describes a task by C numbers; made from plain arguments, which a subclass keeps as attributes of the same names."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def dim(self) -> int:
        """C."""

    @abstractmethod
    def encode(self, task: Description) -> Tensor:
        """The condition (C,) of a task.

        Raises:
            ParamgenError: The task lacks what this encoder reads, or has more or fewer numbers of it.
        """

    def config(self) -> dict[str, Any]:
        """``{"kind", …, "dim"}``, plain values for :func:`load_encoder`."""
        arguments = {name: getattr(self, name) for name in signature(type(self)).parameters}
        return {"kind": self.kind, **arguments, "dim": self.dim}


class CodeCondition(ConditionEncoder):
    """The numbers that say what the task is: bits of a relabeling, cosine and sine of an angle.

    Args:
        dim: C.
    """

    kind = "code"

    def __init__(self, dim: int) -> None:
        require_positive("condition ", dim=dim)
        self._dim = dim

    @property
    def dim(self) -> int:
        """C."""
        return self._dim

    def encode(self, task: Description) -> Tensor:
        """The task's code (C,)."""
        if task.code is None:
            raise ParamgenError(
                f"task {task.name!r} has no code; condition it on an image, statistics, a label or a file"
            )
        return _checked(task.code.float(), self._dim, task)


class LabelCondition(ConditionEncoder):
    """Index of a task in a known list. Carries no information on other tasks.

    Args:
        num_tasks: T.
        width: Width of fixed random normal vectors, for large T. Default: one-hot vectors.
        seed: Seed of the vectors.
    """

    kind = "label"

    def __init__(self, num_tasks: int, width: int | None = None, seed: int = 0) -> None:
        require_positive("condition ", num_tasks=num_tasks, width=width)
        self.num_tasks, self.width, self.seed = num_tasks, width, seed

    @property
    def dim(self) -> int:
        """C."""
        return self.width or self.num_tasks

    def encode(self, task: Description) -> Tensor:
        """The task's row (C,) of the table."""
        if not 0 <= task.index < self.num_tasks:
            raise ParamgenError(
                f"task {task.name!r} has the label {task.index}; the labels known are 0 to {self.num_tasks - 1}"
            )
        if self.width is None:
            return F.one_hot(torch.tensor(task.index), self.num_tasks).float()
        noise = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.num_tasks, self.width, generator=noise)[task.index]


class _Tower(ConditionEncoder):
    """A frozen vision tower of timm with its preprocessing; the arguments are those of its subclasses."""

    name: str
    pretrained: bool
    weights: str | None
    seed: int
    _network: nn.Module | None = None

    def features(self, images: Tensor) -> Tensor:
        """Features (m, F) of images (m, 1 or 3, H, W) in [0, 1], each of length sqrt(F).

        Images are stretched to the tower's square: a crop would lose the edges.
        """
        from timm.data import resolve_model_data_config  # 3 s

        if self._network is None:
            self._network = load_tower(self.name, self.pretrained, self.weights, self.seed)
        config = resolve_model_data_config(self._network)
        x = images.expand(-1, config["input_size"][0], -1, -1) if images.shape[1] == 1 else images
        x = F.interpolate(x, config["input_size"][1:], mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
        with torch.no_grad():
            output = self._network((x - mean) / std)  # (m, F)
        features: Tensor = F.normalize(output, dim=1) * output.shape[1] ** 0.5
        return features

    def num_features(self) -> int:
        """F, which needs no weights."""
        with torch.device("meta"):
            network = self._network or load_tower(self.name, pretrained=False)
        return int(network.num_features)  # type: ignore[arg-type]  # timm's networks all have it


class ImageCondition(_Tower):
    """The task's background image, seen by a frozen encoder: CLIP's, as in Wild-P-Diff.

    Args:
        name: A timm network.
        pretrained: Use its published weights. Random weights are for tests only.
        weights: File of published weights, for machines without network access.
        seed: Seed of random weights.
    """

    kind = "image"

    def __init__(self, name: str = CLIP, pretrained: bool = True, weights: str | None = None, seed: int = 0) -> None:
        self.name, self.pretrained, self.weights, self.seed = name, pretrained, weights, seed

    @property
    def dim(self) -> int:
        """C."""
        return self.num_features()

    def encode(self, task: Description) -> Tensor:
        """Features (C,) of the background."""
        if task.background is None:
            raise ParamgenError(
                f"task {task.name!r} has no background image; condition it on statistics, a code or a file"
            )
        return self.features(task.background[None])[0]


class StatisticsCondition(_Tower):
    """Mean and standard deviation, over a few images of the task, of their pixels or features.

    Args:
        space: ``pixels`` (of images resized to `size`) or ``features`` (of an encoder).
        channels: Image channels, for ``pixels``.
        size: Image height and width, for ``pixels``.
        images: Maximum number of images.
        classes: Number of classes, each of which gets its own statistics: the embedding of a labelled dataset, as in D2NWG. Default: the
            images are unlabelled.
        name: A timm network, for ``features``.
        pretrained: Use its published weights, else random ones.
        weights: File of published weights.
        seed: Seed of random weights.
    """

    kind = "statistics"

    def __init__(
        self,
        space: Space = "pixels",
        channels: int = 1,
        size: int = 8,
        images: int = 16,
        classes: int | None = None,
        name: str = CLIP,
        pretrained: bool = True,
        weights: str | None = None,
        seed: int = 0,
    ) -> None:
        require_choice(Space, "condition ", space=space)
        if images < 2:
            raise ParamgenError(f"condition images is {images}, expected 2 or more: one has no spread")
        require_positive("condition ", channels=channels, size=size, classes=classes)
        self.space, self.channels, self.size, self.images, self.classes = space, channels, size, images, classes
        self.name, self.pretrained, self.weights, self.seed = name, pretrained, weights, seed

    @property
    def dim(self) -> int:
        """C."""
        features = self.channels * self.size**2 if self.space == "pixels" else self.num_features()
        return 2 * (self.classes or 1) * features

    def encode(self, task: Description) -> Tensor:
        """Means, then standard deviations: (C,); class after class where there are classes."""
        if len(task.images) < 2:
            raise ParamgenError(f"task {task.name!r} has {counted(len(task.images), 'image')}, expected 2 or more")
        images = task.images[: self.images]  # (m, channels, H, W)
        if self.space == "pixels":
            small = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
            x = small.flatten(1)  # (m, F)
        else:
            x = self.features(images)
        groups = [x] if self.classes is None else self._by_class(x, task, self.classes)
        statistics = [moment for rows in groups for moment in (rows.mean(0), rows.std(0, correction=0))]
        return _checked(torch.cat(statistics), self.dim, task)

    def _by_class(self, x: Tensor, task: Description, classes: int) -> list[Tensor]:
        """The features of each class, (m', F) each."""
        if task.labels is None:
            raise ParamgenError(f"task {task.name!r} has no labels; leave the condition's classes out")
        labels = task.labels[: len(x)]
        groups = [x[labels == c] for c in range(classes)]
        if absent := [c for c, rows in enumerate(groups) if not len(rows)]:
            raise ParamgenError(
                f"the {len(x)} images of task {task.name!r} have none of class {absent[0]}; raise the condition's images "
                f"({self.images}) or correct its classes ({classes})"
            )
        return groups


class FileCondition(ConditionEncoder):
    """Embeddings computed elsewhere.

    Args:
        path: ``.safetensors`` with one vector per task, under its name, or ``.npy`` (T, C) in the order of the tasks.
    """

    kind = "file"

    def __init__(self, path: str) -> None:
        self.path = path
        self._table = _read_table(Path(path))

    @property
    def dim(self) -> int:
        """C."""
        rows = self._table.values() if isinstance(self._table, dict) else self._table
        return len(next(iter(rows)))

    def encode(self, task: Description) -> Tensor:
        """The task's row (C,) of the file."""
        if isinstance(self._table, dict):
            if task.name not in self._table:
                raise ParamgenError(
                    f"{self.path} has no embedding of task {task.name!r}. {did_you_mean(task.name, self._table)}"
                )
            return _checked(self._table[task.name], self.dim, task)
        if task.index >= len(self._table):
            raise ParamgenError(
                f"{self.path} holds {len(self._table)} embeddings, none for task {task.name!r}, number {task.index}"
            )
        return self._table[task.index]


ENCODERS: dict[str, type[ConditionEncoder]] = {
    kind.kind: kind for kind in (CodeCondition, LabelCondition, ImageCondition, StatisticsCondition, FileCondition)
}


def load_encoder(config: Mapping[str, Any], trust: bool = False, where: str = SOMEWHERE) -> ConditionEncoder:
    """The encoder of a recorded configuration.

    Args:
        config: ``{"kind": …, …}``.
        trust: Let it read the files and fetch the weights that it names.
        where: The file that contains it, for messages.

    Raises:
        UntrustedError: `trust` is false, and the encoder would read a file or fetch weights.
        ParamgenError: No such kind, or arguments that it does not take.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in ENCODERS:
        raise ParamgenError(f"Unknown condition kind {kind!r}. {did_you_mean(str(kind), ENCODERS)}")
    if "dim" not in signature(ENCODERS[kind]).parameters:
        arguments.pop("dim", None)
    check_arguments(ENCODERS[kind], arguments, f"condition {kind!r}")
    reads = None if trust else _reads(kind, arguments)
    if reads is not None:
        raise UntrustedError(f"{where} makes its conditions from {reads}: reading or fetching that needs {HOW}")
    return ENCODERS[kind](**arguments)


def _reads(kind: str, arguments: Mapping[str, Any]) -> str | None:
    """The file or the published weights that an encoder reads."""
    if kind == "file":
        return f"the file {arguments['path']!r}"
    if kind == "image" or arguments.get("space") == "features":
        if arguments.get("weights") is not None:
            return f"the weights file {arguments['weights']!r}"
        if arguments.get("pretrained", True):
            return f"the published weights of {arguments.get('name', CLIP)}"
    return None


def load_tower(name: str, pretrained: bool = True, weights: str | None = None, seed: int = 0) -> nn.Module:
    """A frozen image encoder of timm's without its classifier.

    Args:
        name: A timm network.
        pretrained: With its published weights.
        weights: File of them; else timm downloads them.
        seed: Of random weights, where they are not pretrained.

    Raises:
        ParamgenError: Unknown network, or missing weights; the message names the file and its folder.
    """
    import timm  # 3 s

    if not timm.is_model(name):
        raise ParamgenError(f"Unknown timm network {name!r}. {did_you_mean(name, timm.list_models())}")
    if weights is not None and not Path(weights).is_file():
        raise ParamgenError(f"no weights file {weights!r} for {name}; {_where_from(name)}")
    overlay = None if weights is None else {"file": weights}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            if pretrained and weights is None:
                require_timm_weights(name)
            network = timm.create_model(
                name, pretrained=pretrained or weights is not None, num_classes=0, pretrained_cfg_overlay=overlay
            )
        except Exception as error:  # the hub, the network, zip and torch raise different errors
            if weights is not None:
                raise ParamgenError(f"{weights} does not fit {name}: {first_line(error)}") from error
            raise ParamgenError(
                f"the weights of {name} are not here and cannot be downloaded; {_where_from(name)}"
            ) from error
    frozen: nn.Module = network.eval().requires_grad_(False)
    return frozen


def _where_from(name: str) -> str:
    """Which file holds a network's published weights, and what to do with it."""
    import timm

    published = timm.get_pretrained_cfg(name)
    place = f"https://huggingface.co/{published.hf_hub_id}" if published and published.hf_hub_id else "timm's releases"
    return f"get model.safetensors from {place} and give its path as the condition's weights (or put it into $HF_HOME)"


def _read_table(path: Path) -> dict[str, Tensor] | Tensor:
    if path.suffix == ".safetensors":
        table = read_tensors(path)
        if not table or any(row.dim() != 1 for row in table.values()):
            raise ParamgenError(f"{path}: expected one vector per task, under its name")
        return {name: row.float() for name, row in table.items()}
    if path.suffix != ".npy":
        raise ParamgenError(f"cannot read embeddings from {path}: expected .safetensors or .npy")
    try:
        rows = torch.from_numpy(np.load(path, allow_pickle=False)).float()
    except (OSError, ValueError, TypeError) as error:
        raise ParamgenError(f"cannot read {path}: {first_line(error)}") from error
    if rows.dim() != 2 or len(rows) == 0:
        raise ParamgenError(f"{path}: expected an array (tasks, numbers), got {tuple(rows.shape)}")
    return rows


def _checked(condition: Tensor, dim: int, task: Description) -> Tensor:
    if tuple(condition.shape) != (dim,):
        raise ParamgenError(f"the condition of task {task.name!r} has {condition.numel()} numbers, expected {dim}")
    return condition
