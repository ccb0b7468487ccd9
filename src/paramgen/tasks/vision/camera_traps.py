"""Camera traps: one task a location (Wild-P-Diff, section 4.1), from COCO Camera Traps json as LILA has it for Snapshot Serengeti.

``images`` have ``id``, ``file_name``, ``location`` and mostly ``seq_id``; ``annotations`` have ``image_id`` and ``category_id``;
``categories`` have ``id`` and ``name``. Images of several species are left out, and so are species beyond the most frequent ones. The
images of one sequence (a burst) are never in two splits.
"""

import inspect
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from paramgen.core.io import inside, read_json
from paramgen.core.spacing import first_to_last
from paramgen.errors import ParamgenError, did_you_mean, require_fraction, require_non_negative, require_positive
from paramgen.tasks.base import Description, Outline, SplitData, TaskFamily
from paramgen.tasks.lora import LoraSettings, inject, lora_settings
from paramgen.tasks.score import Classifies
from paramgen.tasks.vision.datasets import IMAGENET, data_root
from paramgen.tasks.vision.networks import build_network
from paramgen.tasks.vision.splits import StreamedSplit

EMPTY = "empty"
DESCRIBED = 16  # unlabelled images of a description: each is decoded from its file


@dataclass(frozen=True)
class Picture:
    """One image: its file, location, sequence and species."""

    file: str
    location: str
    sequence: str
    species: str


def read_camera_traps(annotations: Path) -> list[Picture]:
    """The images of a COCO Camera Traps file that show one species, or nothing.

    Raises:
        ParamgenError: The file is missing or is not a COCO Camera Traps JSON file; what it lacks is named.
    """
    content = read_json(annotations)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ParamgenError(f"{annotations} is not a COCO Camera Traps JSON file: it has no list {key!r}")
    try:
        species = {c["id"]: str(c["name"]) for c in content["categories"]}
        labels: dict[Any, set[str]] = defaultdict(set)
        for annotation in content["annotations"]:
            labels[annotation["image_id"]].add(species[annotation["category_id"]])
        return [
            Picture(str(i["file_name"]), str(i["location"]), str(i.get("seq_id", i["id"])), next(iter(labels[i["id"]])))
            for i in content["images"]
            if len(labels[i["id"]]) == 1
        ]
    except (KeyError, TypeError) as error:
        raise ParamgenError(f"{annotations} is not a COCO Camera Traps JSON file: an entry lacks {error}") from error


class CameraTrapFamily(Classifies, TaskFamily):
    """Classification of animals at camera locations. A task's name is its location.

    Args:
        annotations: The json file, relative to `root` or absolute.
        root: Folder of the images. Default: ``$PARAMGEN_DATA``, else ``./data``.
        pretrain: Locations to pretrain the network on, or their number.
        seen: Seen locations, or their number.
        unseen: Unseen locations, or their number.
        classes: Number of classes: the most frequent species over all locations, including ``empty``.
        exclude: Labels to exclude, for example ``human``.
        network: As in ClassificationTask.
        network_args: Further arguments of the network.
        pretrained: Start from the weights published by timm or torchvision.
        lora: Generate adapters on the pretrained network instead of complete networks.
        backgrounds: Background images for locations without an ``empty`` image.
        image_size: Height and width after cropping.
        val_fraction: Share of a location's images, by sequence, that becomes its val split.
        test_fraction: Share that becomes its test split.
        split_seed: Seed of the selected locations, the splits and the backgrounds.
        num_workers: Processes that decode images.

    Raises:
        ParamgenError: No such file or location, a location without images, more locations than there are, too few species.
    """

    def __init__(
        self,
        annotations: str,
        root: str | None = None,
        pretrain: int | list[str] = 100,
        seen: int | list[str] = 10,
        unseen: int | list[str] = 5,
        classes: int = 19,
        exclude: list[str] | None = None,
        network: str = "timm:efficientnet_b0",
        network_args: dict[str, Any] | None = None,
        pretrained: bool = False,
        lora: LoraSettings | None = None,
        backgrounds: dict[str, str] | None = None,
        image_size: int = 224,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        require_positive(image_size=image_size)
        require_fraction(val_fraction=val_fraction, test_fraction=test_fraction)
        require_non_negative(split_seed=split_seed, num_workers=num_workers)
        self.annotations, self.root, self._root = annotations, root, data_root(root)
        self.classes, self.exclude = classes, list(exclude or [])
        pictures = read_camera_traps(self._root / annotations)
        self.species = _frequent(pictures, classes, self.exclude)
        self._at: dict[str, list[Picture]] = {p.location: [] for p in pictures}
        for picture in pictures:
            if picture.species in self.species:
                self._at[picture.location].append(picture)
        self.pretrain, self.seen, self.unseen = self._choose((pretrain, seen, unseen), split_seed)
        self.network, self.network_args, self.pretrained = network, dict(network_args or {}), pretrained
        self.lora, self.backgrounds = lora_settings(lora), dict(backgrounds or {})
        self.image_size, self.num_workers = image_size, num_workers
        self.val_fraction, self.test_fraction, self.split_seed = val_fraction, test_fraction, split_seed

    @classmethod
    def outline(cls, **arguments: Any) -> Outline:
        """As in the base class, without the file of annotations; the weights are random."""
        given = inspect.signature(cls).bind(**arguments)
        given.apply_defaults()
        chosen, lora, seen = given.arguments, lora_settings(given.arguments["lora"]), given.arguments["seen"]
        shape = (3, chosen["image_size"], chosen["image_size"])
        network = build_network(chosen["network"], chosen["classes"], shape, **(chosen["network_args"] or {}))
        return Outline(network if lora is None else inject(network, lora), seen if isinstance(seen, int) else len(seen))

    def plain(self) -> nn.Module:
        """The network."""
        shape = (3, self.image_size, self.image_size)
        return build_network(self.network, len(self.species), shape, pretrained=self.pretrained, **self.network_args)

    def pooled(self, names: Sequence[str], split: str) -> SplitData:
        """Images of one location, or of several pooled."""
        self.check(names, split)
        return self._streamed([p for name in names for p in self._divided(name)[split]], names)

    def pretraining(self, split: str) -> SplitData | None:
        """The pretraining locations pooled."""
        if not self.pretrain:
            return None
        return self._streamed([p for name in self.pretrain for p in self._divided(name)[split]], self.pretrain)

    def describe(self, name: str) -> Description:
        """Its background, an ``empty`` image of its train split, and some of its images."""
        self.check([name])
        train = self._divided(name)["train"]
        indices = first_to_last(len(train), min(DESCRIBED, len(train)))
        images = torch.stack([self._pixels(train[i].file) for i in indices])
        labels = torch.tensor([self.species.index(train[i].species) for i in indices])
        return Description(name, self.names.index(name), None, self._pixels(self.background(name)), images, labels)

    def background(self, name: str) -> str:
        """File of a location's image without animals.

        Raises:
            ParamgenError: It has none, and none is given.
        """
        if name in self.backgrounds:
            return self.backgrounds[name]
        empty = [p.file for p in self._divided(name)["train"] if p.species == EMPTY]
        if not empty:
            raise ParamgenError(
                f"location {name!r} has no background: none of its train images is {EMPTY!r}; give one in backgrounds"
            )
        return empty[int(np.random.default_rng(self.split_seed).integers(len(empty)))]

    def _choose(self, requested: Sequence[int | list[str]], seed: int) -> list[list[str]]:
        """Locations by name: those that are given, and random other ones where their number is given."""
        available = {name for name, pictures in self._at.items() if pictures}
        named = [name for names in requested if not isinstance(names, int) for name in names]
        for name in named:
            if name not in self._at:
                raise ParamgenError(f"Unknown location {name!r} in {self.annotations}. {did_you_mean(name, available)}")
            if name not in available:
                raise ParamgenError(f"location {name!r} has no images of the {self.classes} selected classes")
        if len(set(named)) < len(named):
            raise ParamgenError("a location is given twice; pretrain, seen and unseen may not overlap")
        free = sorted(available - set(named))
        count = sum(names for names in requested if isinstance(names, int))
        if count > len(free):
            raise ParamgenError(
                f"{count} locations were requested by number, but {self.annotations} has only {len(free)} left"
            )
        drawn = iter(np.random.default_rng(seed).permutation(free).tolist())
        return [[next(drawn) for _ in range(names)] if isinstance(names, int) else list(names) for names in requested]

    @cached_property
    def _parts(self) -> dict[str, Mapping[str, list[Picture]]]:
        return {}

    def _divided(self, name: str) -> Mapping[str, list[Picture]]:
        """A location's images by split: complete sequences, at least one per split."""
        if name not in self._parts:
            pictures = self._at[name]
            sequences = sorted({p.sequence for p in pictures})
            if len(sequences) < 3:
                raise ParamgenError(f"location {name!r} has {len(sequences)} sequences, expected 3 or more to split it")
            remaining = np.random.default_rng(self.split_seed).permutation(sequences).tolist()
            sizes = Counter(p.sequence for p in pictures)
            parts: dict[str, set[str]] = {}
            for split, share, reserved in (("test", self.test_fraction, 2), ("val", self.val_fraction, 1)):
                selected = [remaining.pop()]
                while sum(sizes[s] for s in selected) < share * len(pictures) and len(remaining) > reserved:
                    selected.append(remaining.pop())
                parts[split] = set(selected)
            parts["train"] = set(remaining)
            self._parts[name] = {s: [p for p in pictures if p.sequence in parts[s]] for s in parts}
        return self._parts[name]

    def _streamed(self, pictures: list[Picture], names: Sequence[str]) -> SplitData:
        paths = [inside(self._root, picture.file) for picture in pictures]
        for picture, path in zip(pictures, paths, strict=True):
            if not path.is_file():
                raise ParamgenError(f"location {picture.location!r}: no image {path.absolute()}")
        labels = torch.tensor([self.species.index(p.species) for p in pictures])
        files = _Files(paths, labels)
        return StreamedSplit(files, labels, self.image_size, *IMAGENET, num_workers=self.num_workers)

    def _pixels(self, file: str) -> Tensor:
        """One image (3, size, size) in [0, 1]."""
        image = torch.from_numpy(np.array(_open(inside(self._root, file)))).permute(2, 0, 1)[None].float() / 255
        size = (self.image_size, self.image_size)
        return F.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)[0]


class _Files(Dataset[Any]):
    """(PIL image, label) of files."""

    def __init__(self, files: Sequence[Path], labels: Tensor) -> None:
        self.files, self.labels = files, labels.tolist()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return _open(self.files[index]), self.labels[index]


def _open(path: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise ParamgenError(f"cannot read image {path}: {error}") from error


def _frequent(pictures: Sequence[Picture], classes: int, exclude: Sequence[str]) -> list[str]:
    """``empty`` and the most frequent species, ties by name."""
    counts = Counter(p.species for p in pictures if p.species != EMPTY and p.species not in exclude)
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    if len(ordered) < classes - 1:
        raise ParamgenError(
            f"{classes} classes need {classes - 1} species besides {EMPTY!r}, but there are {len(ordered)}"
        )
    return [EMPTY, *ordered[: classes - 1]]
