"""Autoencoders of handwritten digits: a task that is no classifier."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from paramgen import ArraySplit, Measured, ScoreSpec, Task


class DigitAutoencoder(Task):
    """Compress scikit-learn's 1,797 digits of 8x8 pixels (RMSE in grey levels from 0 to 16, lower is better).

    Args:
        width: Numbers that an image is compressed to.
    """

    score = ScoreSpec("RMSE", unit="plain", higher_is_better=False, margin=0.1, axis="linear")

    def __init__(self, width: int = 8) -> None:
        self.width = width

    def build(self) -> nn.Module:
        """64 pixels to `width` numbers and back."""
        return nn.Sequential(nn.Linear(64, self.width), nn.Tanh(), nn.Linear(self.width, 64))

    def data(self, split: str) -> ArraySplit:
        """Images (M, 64) with grey levels from 0 to 1; the target is the image itself."""
        images = torch.tensor(load_digits().data).float() / 16
        part = {"train": slice(1000), "val": slice(1000, 1200), "test": slice(1200, None)}[split]
        return ArraySplit(images[part], images[part])

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of each image: (N, B)."""
        return (output - target).square().mean(-1)

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """What the score is computed from."""
        return Measured(self.loss(output, target))

    def value(self, items: Tensor) -> Tensor:
        """Root of the mean over all images, in grey levels: (N, M) to (N,)."""
        return 16 * items.double().mean(1).sqrt()
