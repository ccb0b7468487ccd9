"""Many implicit fields, one network a picture or shape, as a distribution to learn: HyperDiffusion (Erkoc et al. 2023, arXiv:2303.17015).

A field is its data point. A generated one is a new picture or shape, for which no target exists: it is rendered and compared with real
ones.
N: networks. M: points of a split. H, W: pixels.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.core.score import ScoreSpec
from paramgen.errors import ParamgenError, require_non_negative, require_positive
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.base import Description, Outline, SplitData, Task, TaskFamily
from paramgen.tasks.field_sources import FieldSource, PictureSource, ShapeSource, points_of
from paramgen.tasks.fields import Encloses, Field, Represents
from paramgen.tasks.score import Scores
from paramgen.tasks.scoring import run_many

OTHERS = 2000  # members without a field that new fields are scored on; half of them for the test split


class _Fields:
    """Which members of a source have a field, and the field's size; the arguments are those of its subclasses."""

    def __init__(self, fields: int, heldout: int, hidden: int, octaves: int, resolution: int, seed: int) -> None:
        require_positive(fields=fields, heldout=heldout, hidden=hidden, octaves=octaves, resolution=resolution)
        require_non_negative(seed=seed)
        self.fields, self.heldout = fields, heldout
        self.hidden, self.octaves, self.resolution, self.seed = hidden, octaves, resolution, seed
        members = len(self.source)
        if fields + heldout > members - 2:
            raise ParamgenError(
                f"fields {fields} and heldout {heldout} are more than {members - 2} of the {members} {self.source.noun}; two or more "
                "without a field are needed to score on"
            )

    @property
    @abstractmethod
    def source(self) -> FieldSource:
        """What the fields represent."""

    @cached_property
    def order(self) -> list[int]:
        """All members in a random order: those of the fields, of the held-out fields, and of no field."""
        generator = torch.Generator().manual_seed(self.seed)
        order: list[int] = torch.randperm(len(self.source), generator=generator, device="cpu").tolist()
        return order

    def network(self) -> nn.Module:
        """A fresh field."""
        return Field(self.hidden, self.octaves)


class _FieldsFamily(_Fields, TaskFamily):
    """One field for each of many members; a task's name is the number of its member, such as ``0042``."""

    def __init__(self, fields: int, heldout: int, hidden: int, octaves: int, resolution: int, seed: int) -> None:
        super().__init__(fields, heldout, hidden, octaves, resolution, seed)
        digits = len(str(len(self.source) - 1))
        names = [f"{member:0{digits}d}" for member in self.order[: fields + heldout]]
        self.seen, self.unseen = names[:fields], names[fields:]

    @classmethod
    def outline(cls, **arguments: Any) -> Outline:
        """The field and the number of seen tasks, without the pictures."""
        given = signature(cls).bind(**arguments)
        given.apply_defaults()
        sizes = given.arguments
        return Outline(Field(sizes["hidden"], sizes["octaves"]), sizes["fields"])

    def plain(self) -> nn.Module:
        """A fresh field."""
        return self.network()

    def pooled(self, names: Sequence[str], split: str) -> SplitData:
        """Points of a split and the values there; of several members, their mean."""
        self.check(names, split)
        points = self._points[split]
        return ArraySplit(points, self.source.values([int(name) for name in names], points).mean(0))

    def describe(self, name: str) -> Description:
        """The member's picture; its code is the class, one-hot."""
        self.check([name])
        source, member = self.source, int(name)
        code = F.one_hot(source.labels[member], source.classes).float()
        picture = source.renders(source.values([member], source.pixels)[..., 0])  # (1, H, W)
        return Description(name, self.names.index(name), code, None, picture[None])

    @cached_property
    def _points(self) -> dict[str, Tensor]:
        return {split: points_of(split, self.resolution) for split in ("train", "val", "test")}  # shared by all members


class _FieldsPopulation(_Fields, Task):
    """Be a member of a source. A field is rendered and compared with members that no network of the zoo is."""

    has_data = False  # its networks are trained by the family, each on its own member

    def build(self) -> nn.Module:
        """A fresh field."""
        return self.network()

    def data(self, split: str) -> SplitData:
        """Always empty.

        Raises:
            ParamgenError: Always.
        """
        raise ParamgenError(
            f"{type(self).__name__} has no data: a new field has no target. paramgen collect_tasks trains fields, with their family"
        )

    def count(self, split: str, most: int | None = None) -> int:
        """Pixels."""
        return self.source.side**2

    def evaluate(
        self,
        states: Sequence[Mapping[str, Tensor]],
        split: str,
        most: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Scores:
        """Scores of complete networks, with their pictures; `most` has no effect."""
        self.check([None], split)
        values = self._values(states, device)  # (N, F)
        return Scores(self.best_match(values, self._others(split)), renders=self.source.renders(values))

    def rendered(self, states: Sequence[Mapping[str, Tensor]], device: torch.device | str = "cpu") -> Tensor:
        """The pictures (N, H, W) of complete networks, in [0, 1]."""
        return self.source.renders(self._values(states, device))

    @abstractmethod
    def best_match(self, drawn: Tensor, others: Tensor) -> Tensor:
        """The scores (N,) of fields' values (N, F) at the pixels: with the most similar of other members (m, F)."""

    def _values(self, states: Sequence[Mapping[str, Tensor]], device: torch.device | str) -> Tensor:
        """What networks return at the pixels' centres, (N, F)."""
        points = self.source.pixels
        values = torch.zeros(len(states), len(points))
        for run in run_many(self.architecture.to(device), states, ArraySplit(points, points), device=device):
            values[run.networks, run.items] = run.output[..., 0].float().cpu()
        return values

    def _others(self, split: str) -> Tensor:
        """Values (m, F) of members that are no network: every second one for the test split."""
        others = self.order[self.fields + self.heldout :][:OTHERS]
        chosen = others[1::2] if split == "test" else others[::2]
        if split not in self._values_of_others:
            self._values_of_others[split] = self.source.values(chosen, self.source.pixels)[..., 0]
        return self._values_of_others[split]

    @cached_property
    def _values_of_others(self) -> dict[str, Tensor]:
        return {}


class _OfPictures(_Fields):
    """Fields of grey pictures; the arguments are those of its subclasses."""

    def __init__(
        self,
        fields: int = 500,
        heldout: int = 200,
        hidden: int = 16,
        octaves: int = 3,
        resolution: int = 8,
        seed: int = 0,
        dataset: str = "digits",
        root: str | None = None,
    ) -> None:
        self.dataset, self.root = dataset, root
        super().__init__(fields, heldout, hidden, octaves, resolution, seed)

    @cached_property
    def source(self) -> FieldSource:
        """The pictures."""
        return PictureSource(self.dataset, self.root)


class _OfShapes(_Fields):
    """Fields of procedural shapes; the arguments are those of its subclasses."""

    def __init__(
        self,
        fields: int = 500,
        heldout: int = 200,
        hidden: int = 24,
        octaves: int = 3,
        resolution: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(fields, heldout, hidden, octaves, resolution, seed)

    @cached_property
    def source(self) -> FieldSource:
        """The shapes."""
        return ShapeSource()


class FieldFamily(_OfPictures, Represents, _FieldsFamily):
    """One field for each of many grey pictures; a task's name is the index of its picture, such as ``0042``.

    The zoo is one of a single task (:class:`FieldsTask`), whose networks are samples of one distribution.

    Args:
        fields: Number of pictures whose fields generators learn from.
        heldout: Number of pictures whose fields are held out.
        hidden: Width of the hidden layers.
        octaves: Number of frequencies.
        resolution: Points per side that a field is trained on; as many as the pictures have pixels: the pixels.
        seed: Seed that selects the pictures.
        dataset: ``digits`` (scikit-learn's, 8x8), ``mnist`` or ``fashion_mnist`` (28x28, their training images).
        root: Folder of the data. Default: ``$PARAMGEN_DATA``, else ``./data``.

    Raises:
        ParamgenError: A size below 1, more pictures than there are, or no such pictures.
    """

    def population(self) -> Task:
        """The task of the zoo."""
        sizes = (self.fields, self.heldout, self.hidden, self.octaves, self.resolution, self.seed)
        return FieldsTask(*sizes, self.dataset, self.root)


class FieldsTask(_OfPictures, Represents, _FieldsPopulation):
    """Be a picture of a set. A field is rendered in the set's pixels and compared with pictures that no network of the zoo is.

    The score is the PSNR to the nearest of these pictures, 2,000 at most: half of them for the test split, the other half for train and
    val. Sets of fields are compared with held-out ones. The arguments are those of :class:`FieldFamily`, which trains the fields.

    Args:
        fields: Number of fields that generators learn from.
        heldout: Number of held-out fields.
        hidden: Width of the hidden layers.
        octaves: Number of frequencies.
        resolution: Points per side that a field was trained on.
        seed: Seed that selects the pictures.
        dataset: The set of pictures.
        root: Folder of the data. Default: ``$PARAMGEN_DATA``, else ``./data``.

    Raises:
        ParamgenError: As of the family.
    """

    score = ScoreSpec("PSNR to the nearest digit", unit="dB", margin=1.0, axis="linear")


class ShapeFamily(_OfShapes, Encloses, _FieldsFamily):
    """One field for each of many procedural shapes: its signed distance, negative inside. A task's name is the shape's number.

    A shape is a disc, ring, box, triangle, cross or star of random place, size, rotation and proportions. Distances are exact. The zoo is
    one of a single task (:class:`ShapesTask`), whose networks are samples of one distribution.

    Args:
        fields: Number of shapes whose fields generators learn from.
        heldout: Number of shapes whose fields are held out.
        hidden: Width of the hidden layers.
        octaves: Number of frequencies.
        resolution: Points per side that a field is trained on.
        seed: Seed that selects the shapes.

    Raises:
        ParamgenError: A size below 1, or more than 1,998 shapes.
    """

    def population(self) -> Task:
        """The task of the zoo."""
        return ShapesTask(self.fields, self.heldout, self.hidden, self.octaves, self.resolution, self.seed)


class ShapesTask(_OfShapes, Encloses, _FieldsPopulation):
    """Be a shape. A field is rendered as 24x24 pixels and compared with shapes that no network of the zoo is.

    The score is the IoU with the most similar of these shapes: half of them for the test split, the other half for train and val. Sets of
    fields are compared with held-out ones. The arguments are those of :class:`ShapeFamily`, which trains the fields.

    Args:
        fields: Number of fields that generators learn from.
        heldout: Number of held-out fields.
        hidden: Width of the hidden layers.
        octaves: Number of frequencies.
        resolution: Points per side that a field was trained on.
        seed: Seed that selects the shapes.

    Raises:
        ParamgenError: As of the family.
    """

    score = ScoreSpec("IoU with the most similar shape", margin=0.02)
