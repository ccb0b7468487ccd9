"""Many implicit fields, one network a picture, as a distribution to learn: HyperDiffusion (Erkoc et al. 2023, arXiv:2303.17015).

A field is its data point. A generated one is a new picture, for which no target exists: it is rendered and compared with real pictures.
N: networks. M: points of a split. H, W: pixels.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.core.score import ScoreSpec
from paramgen.errors import ParamgenError, require_non_negative, require_positive
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.base import Description, SplitData, Task, TaskFamily
from paramgen.tasks.fields import Field, Represents, digit_pictures, grey_values, points_of
from paramgen.tasks.score import Scores
from paramgen.tasks.scoring import run_many


class _DigitFields:
    """Which of scikit-learn's digits have a field, and the field's size; the arguments are those of its subclasses."""

    def __init__(
        self,
        fields: int = 500,
        heldout: int = 200,
        hidden: int = 16,
        octaves: int = 3,
        resolution: int = 8,
        seed: int = 0,
    ) -> None:
        require_positive(fields=fields, heldout=heldout, hidden=hidden, octaves=octaves, resolution=resolution)
        require_non_negative(seed=seed)
        pictures = len(digit_pictures().grey)
        if fields + heldout > pictures - 2:
            raise ParamgenError(
                f"fields {fields} and heldout {heldout} are more than {pictures - 2} of the {pictures} digits; two or more without a "
                "field are needed to score on"
            )
        self.fields, self.heldout = fields, heldout
        self.hidden, self.octaves, self.resolution, self.seed = hidden, octaves, resolution, seed

    @cached_property
    def order(self) -> list[int]:
        """All pictures in a random order: those of the fields, of the held-out fields, and of no field."""
        generator = torch.Generator().manual_seed(self.seed)
        order: list[int] = torch.randperm(len(digit_pictures().grey), generator=generator, device="cpu").tolist()
        return order

    def network(self) -> nn.Module:
        """A fresh field."""
        return Field(self.hidden, self.octaves)


class FieldFamily(_DigitFields, Represents, TaskFamily):
    """One field for each of many of scikit-learn's digits; a task's name is the index of its picture, such as ``0042``.

    The zoo is one of a single task (:class:`FieldsTask`), whose networks are samples of one distribution.

    Args:
        fields: Number of pictures whose fields generators learn from.
        heldout: Number of pictures whose fields are held out.
        hidden: Width of the hidden layers.
        octaves: Number of frequencies.
        resolution: Points per side that a field is trained on; 8: the pixels.
        seed: Seed that selects the pictures.

    Raises:
        ParamgenError: A size below 1, or more pictures than there are.
    """

    def __init__(
        self,
        fields: int = 500,
        heldout: int = 200,
        hidden: int = 16,
        octaves: int = 3,
        resolution: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(fields, heldout, hidden, octaves, resolution, seed)
        names = [f"{picture:04d}" for picture in self.order[: fields + heldout]]
        self.seen, self.unseen = names[:fields], names[fields:]

    def plain(self) -> nn.Module:
        """A fresh field."""
        return self.network()

    def pooled(self, names: Sequence[str], split: str) -> SplitData:
        """Points of a split and the grey values there; of several pictures, of their mean."""
        self.check(names, split)
        picture = digit_pictures().grey[[int(name) for name in names]].mean(0)
        points = self._points[split]
        return ArraySplit(points, grey_values(picture, points))

    def describe(self, name: str) -> Description:
        """The picture; its code is the digit, one-hot."""
        self.check([name])
        pictures, index = digit_pictures(), int(name)
        code = F.one_hot(pictures.label[index], 10).float()
        return Description(name, self.names.index(name), code, None, pictures.grey[index][None, None])

    def population(self) -> Task:
        """The task of the zoo."""
        return FieldsTask(self.fields, self.heldout, self.hidden, self.octaves, self.resolution, self.seed)

    @cached_property
    def _points(self) -> dict[str, Tensor]:
        return {
            split: points_of(split, self.resolution) for split in ("train", "val", "test")
        }  # shared by all pictures


class FieldsTask(_DigitFields, Represents, Task):
    """Be a digit. A field is rendered as 8x8 pixels and compared with digits that no network of the zoo is.

    The score is the PSNR to the nearest of these digits: half of them for the test split, the other half for train and val. Sets of
    fields are compared with held-out ones. The arguments are those of :class:`FieldFamily`, which trains the fields.

    Args:
        fields: Number of fields that generators learn from.
        heldout: Number of held-out fields.
        hidden: Width of the hidden layers.
        octaves: Number of frequencies.
        resolution: Points per side that a field was trained on.
        seed: Seed that selects the pictures.

    Raises:
        ParamgenError: As of the family.
    """

    score = ScoreSpec("PSNR to the nearest digit", unit="dB", margin=1.0, axis="linear")
    has_data = False  # its networks are trained by the family, each on its own picture

    def build(self) -> nn.Module:
        """A fresh field."""
        return self.network()

    def data(self, split: str) -> SplitData:
        """Always empty.

        Raises:
            ParamgenError: Always.
        """
        raise ParamgenError(
            "FieldsTask has no data: a new field has no target. paramgen collect_tasks trains fields, with FieldFamily"
        )

    def count(self, split: str, most: int | None = None) -> int:
        """Pixels."""
        return digit_pictures().grey[0].numel()

    def evaluate(
        self,
        states: Sequence[Mapping[str, Tensor]],
        split: str,
        most: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Scores:
        """Scores of complete networks, with their pictures; `most` has no effect."""
        self.check([None], split)
        renders = self.rendered(states, device)  # (N, H, W)
        error = torch.cdist(renders.flatten(1).double(), self._others(split).flatten(1).double())  # (N, pictures)
        return Scores(self.value(error.square().amin(1, keepdim=True) / self.count(split)), renders=renders)

    def rendered(self, states: Sequence[Mapping[str, Tensor]], device: torch.device | str = "cpu") -> Tensor:
        """The pictures (N, H, W) of complete networks, in [0, 1]."""
        height, width = digit_pictures().grey.shape[1:]
        points = points_of("train", height)
        pixels = torch.zeros(len(states), len(points))
        for run in run_many(self.architecture.to(device), states, ArraySplit(points, points), device=device):
            pixels[run.networks, run.items] = run.output[..., 0].float().clamp(0, 1).cpu()
        return pixels.view(-1, height, width)

    def _others(self, split: str) -> Tensor:
        """Pictures of no network: every second one for the test split."""
        others = self.order[self.fields + self.heldout :]
        return digit_pictures().grey[others[1::2] if split == "test" else others[::2]]
