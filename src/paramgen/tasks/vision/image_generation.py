"""Image generation: a diffusion UNet that draws images (FID).

N: networks. M: images of a split. B: batch. R: networks trained at once. T: steps of the noise.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from paramgen.core.params import state_digest
from paramgen.core.score import ScoreSpec
from paramgen.errors import (
    ParamgenError,
    arguments_for,
    did_you_mean,
    require_choice,
    require_fraction,
    require_non_negative,
    require_positive,
)
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.forward import Caller, loadable
from paramgen.tasks.score import Measured, Scores, at_least_float32
from paramgen.tasks.scoring import run_many
from paramgen.tasks.vision.datasets import SOURCES, ImagePool, load_pool, stratified
from paramgen.tasks.vision.frechet import Features, Inception, cnn_features, frechet_distance
from paramgen.tasks.vision.unets import UNETS, build_unet, with_step

DRAWN_AT_ONCE = 256  # images that a network draws at once
REMEMBERED = 256  # networks whose images are kept as features, so that the next split need not draw them: 2 MB each with Inception


class NoisySplit(SplitData):
    """Images with noise, and the noise as the target.

    Args:
        images: (M, C, H, W) in [-1, 1].
        alphas: (T,) the share of the image's variance that is left after each step.
    """

    def __init__(self, images: Tensor, alphas: Tensor) -> None:
        super().__init__(images)
        self.alphas = alphas

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As in the base class; the noise is the same every time."""
        x, noise = self._noisy(self.targets, torch.Generator().manual_seed(0))
        yield from zip(x.split(batch_size), noise.split(batch_size), strict=True)

    def training_batches(self, order: Tensor, generators: Sequence[torch.Generator]) -> Iterator[tuple[Tensor, Tensor]]:
        """As in the base class."""
        for index in order:  # (R, B)
            parts = [self._noisy(self.targets[row], g) for row, g in zip(index, generators, strict=True)]
            yield torch.stack([x for x, _ in parts]), torch.stack([noise for _, noise in parts])

    def take(self, index: Tensor) -> "NoisySplit":
        """Some of its images."""
        part = copy.copy(self)
        part.targets = self.targets[index]
        return part

    def _noisy(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(images.shape, generator=generator)
        step = torch.randint(len(self.alphas), (len(images),), generator=generator)
        alpha = self.alphas[step].view(-1, 1, 1, 1)
        return with_step(alpha.sqrt() * images + (1 - alpha).sqrt() * noise, step), noise


class ImageGenerationTask(Task):
    """Draw images: a UNet learns to remove noise (Ho et al. 2020, arXiv:2006.11239), and is scored by the images that it draws.

    The score is the Fréchet distance between drawn images and those of a split; lower is better. All networks start from the same noise.

    Args:
        dataset: ``digits``, ``mnist``, ``fashion_mnist``, ``cifar10`` or ``cifar100``.
        network: ``unet_small`` or ``unet_ddpm`` (of the DDPM paper on CIFAR-10): diffusers' ``UNet2DModel``.
        network_args: Its arguments, in place of those of the name.
        features: Of the distance: ``inception`` (FID; torch-fidelity fetches the weights) or ``cnn`` (a small network trained on the
            set's training images; such distances are comparable among themselves only).
        images: Images that a network draws.
        steps: DDIM's steps.
        num_train_timesteps: T.
        beta_schedule: Of the noise: ``linear``, ``scaled_linear`` or ``squaredcos_cap_v2``.
        root: Folder of the data. Default: ``$PARAMGEN_DATA``, else ``./data``.
        val_fraction: Share of the training images that becomes the val split.
        split_seed: Seed of the val split.
        noise_seed: Seed of the noise that images are drawn from.

    Raises:
        ParamgenError: Unknown dataset, network or features, or a number that is too small.
    """

    def __init__(
        self,
        dataset: str = "digits",
        network: str = "unet_small",
        network_args: dict[str, Any] | None = None,
        features: Features = "cnn",
        images: int = 256,
        steps: int = 10,
        num_train_timesteps: int = 1000,
        beta_schedule: str = "linear",
        root: str | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        noise_seed: int = 0,
    ) -> None:
        available = [name for name, source in SOURCES.items() if not source.streamed]
        if dataset not in available:
            raise ParamgenError(f"Unknown dataset {dataset!r}. {did_you_mean(dataset, available)}")
        if network not in UNETS:
            raise ParamgenError(f"Unknown network {network!r}. {did_you_mean(network, UNETS)}")
        require_choice(Features, features=features)
        require_positive(images=images, steps=steps, num_train_timesteps=num_train_timesteps)
        require_non_negative(split_seed=split_seed, noise_seed=noise_seed)
        if images < 2 or steps > num_train_timesteps:
            raise ParamgenError(
                f"images is {images}, expected 2 or more; steps is {steps}, expected {num_train_timesteps} at most"
            )
        require_fraction(val_fraction=val_fraction)
        self.dataset, self.network, self.network_args = dataset, network, dict(network_args or {})
        self.features, self.images, self.steps = features, images, steps
        self.num_train_timesteps, self.beta_schedule = num_train_timesteps, beta_schedule
        self.root, self.val_fraction, self.split_seed, self.noise_seed = root, val_fraction, split_seed, noise_seed
        name = "FID" if features == "inception" else "Fréchet distance"
        self.score = ScoreSpec(name, unit="plain", higher_is_better=False, margin=0.5, axis="log")
        self._real: dict[tuple[str, int | None], Tensor] = {}  # features of the images of splits
        self._drawn: dict[tuple[str, int], Tensor] = {}  # features of images, by the network that drew them

    def build(self) -> nn.Module:
        """The plain network, freshly initialised from torch's global seed."""
        with arguments_for(f"network {self.network!r}", (TypeError, ValueError)):
            return build_unet(self.network, SOURCES[self.dataset].shape, **self.network_args)

    def data(self, split: str) -> SplitData:
        """Noisy images (M, C + 1, H, W) with their step as the last channel, and their noise (M, C, H, W).

        Raises:
            ParamgenError: No such split, or the data are not there.
        """
        self.check([None], split)
        pool = self._pools["test" if split == "test" else "train"]
        images = _scaled(pool, self.dataset)
        if split != "test":
            count = max(1, round(self.val_fraction * len(images)))
            val, train = stratified(pool.labels, count, self.split_seed)
            images = images[val if split == "val" else train]
        return NoisySplit(images, self._scheduler.alphas_cumprod)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error (N, B) of the noise (N, B, C, H, W)."""
        return (at_least_float32(output) - target).square().flatten(2).mean(2)

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """Squared errors (N, B); no score is computed from them."""
        return Measured(self.loss(output, target))

    def evaluate(
        self,
        states: Sequence[Mapping[str, Tensor]],
        split: str,
        most: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Scores:
        """Scores of complete networks, each by the images that it draws; `most` limits these too."""
        data, model = self.items(split, most), self.architecture.to(device)
        count = self.images if most is None else max(2, min(self.images, most))
        if (split, most) not in self._real:
            self._real[split, most] = self._in_features(data.targets, device)
        real = self._real[split, most]
        value = [frechet_distance(real, self._features_drawn(state, count, device)) for state in states]
        loss = torch.zeros(len(states))
        for run in run_many(model, states, data, DRAWN_AT_ONCE, device):
            each = run.target.expand(len(run.output), *run.target.shape)
            loss[run.networks] += self.loss(run.output, each).sum(1).float().cpu()
        return Scores(torch.tensor(value, dtype=torch.float64), loss / len(data))

    @torch.no_grad()
    def draw(self, state: Mapping[str, Tensor], count: int, device: torch.device | str = "cpu") -> Tensor:
        """Images (count, C, H, W) in [-1, 1] that a network draws.

        Args:
            state: Its complete state dict.
            count: How many.
            device: Where it runs.
        """
        model = self.architecture.to(device).eval()
        run, tensors, scheduler = Caller(model), loadable(model, state, device), copy.deepcopy(self._scheduler)
        generator = torch.Generator().manual_seed(self.noise_seed)
        x = torch.randn(count, *SOURCES[self.dataset].shape, generator=generator).to(device)
        scheduler.set_timesteps(self.steps)
        for t in scheduler.timesteps:
            noise = torch.cat([run(tensors, with_step(part, t.expand(len(part)))) for part in x.split(DRAWN_AT_ONCE)])
            x = scheduler.step(noise, t, x).prev_sample
        return x.clamp(-1, 1).cpu()

    def _features_drawn(self, state: Mapping[str, Tensor], count: int, device: torch.device | str) -> Tensor:
        key = state_digest(state), count
        if key not in self._drawn:
            self._drawn[key] = self._in_features(self.draw(state, count, device), device)
            if len(self._drawn) > REMEMBERED:
                self._drawn.pop(next(iter(self._drawn)))  # the oldest
        return self._drawn[key]

    @torch.no_grad()
    def _in_features(self, images: Tensor, device: torch.device | str = "cpu") -> Tensor:
        extractor = self._extractor.to(device)
        return torch.cat([extractor(part.to(device)).cpu() for part in images.split(DRAWN_AT_ONCE)])

    @cached_property
    def _extractor(self) -> nn.Module:
        return Inception() if self.features == "inception" else _trained_features(self.dataset, self.root)

    @cached_property
    def _pools(self) -> dict[str, ImagePool]:
        return {part: load_pool(self.dataset, self.root, part == "train") for part in ("train", "test")}

    @cached_property
    def _scheduler(self) -> Any:
        import diffusers

        try:
            return diffusers.DDIMScheduler(
                num_train_timesteps=self.num_train_timesteps, beta_schedule=self.beta_schedule, clip_sample=True
            )
        except NotImplementedError as error:
            raise ParamgenError(
                f"beta_schedule is {self.beta_schedule!r}, expected linear, scaled_linear or squaredcos_cap_v2"
            ) from error


@lru_cache(4)
def _trained_features(dataset: str, root: str | None) -> nn.Module:
    """The small network of a set, trained once a process."""
    pool = load_pool(dataset, root, train=True)
    return cnn_features(_scaled(pool, dataset), pool.labels)


def _scaled(pool: ImagePool, dataset: str) -> Tensor:
    """All images (M, C, H, W) in [-1, 1]."""
    assert pool.raw is not None  # sets that are streamed are refused
    return pool.raw.float() * (2 / SOURCES[dataset].white) - 1
