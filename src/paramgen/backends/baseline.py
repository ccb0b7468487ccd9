"""The simple baselines as generators, so that they are fitted, sampled and compared as every method is.

K training networks are kept as they are and drawn from with the functions of :mod:`paramgen.baselines`, the same that every report uses;
there is nothing to optimise.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from paramgen import baselines
from paramgen.data import ParamBatch, data_of
from paramgen.errors import ParamgenError, near, positive
from paramgen.generator import ParameterGenerator
from paramgen.sampling import Drawn, SampleRequest, on_cpu

Kind = Literal["copy", "noise", "interpolation", "soup", "gaussian", "pca_gaussian", "kde"]


class Baseline(ParameterGenerator):
    """Draws from the training networks without learning anything; its checkpoint holds them all.

    A temperature other than 1 draws samples towards the mean of the training networks, or away from it. There is no solver to choose.

    Args:
        seq_len: L, from the data.
        token_dim: D, from the data.
        num_networks: K, from the data.
        kind: ``copy``, ``noise`` (on copies), ``interpolation`` (of random pairs), ``soup`` (means of random networks), ``gaussian`` (one
            a weight), ``pca_gaussian`` (in the principal components) or ``kde`` (a kernel density in them, of the best on train).
        sigma: Of noise, over each tensor's spread in the zoo.
        m: Networks in a soup.
        components: Of pca_gaussian, at most.
        share: Of the zoo that kde keeps, the best on train.

    Raises:
        ParamgenError: An unknown kind, or a size that is not positive.
    """

    networks: Tensor  # (K, L, D) tokens
    accuracy: Tensor  # (K,) on train, zeros where the zoo records none

    def __init__(
        self,
        seq_len: int,
        token_dim: int,
        num_networks: int,
        kind: Kind = "gaussian",
        sigma: float = 1.0,
        m: int = 16,
        components: int = baselines.PCA_COMPONENTS,
        share: float = baselines.TOP_SHARE,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        positive("model.", sigma=sigma, m=m, components=components, share=share)
        kinds = {
            "copy": baselines.Baseline(baselines.copy, raw=True),
            "noise": baselines.Baseline(partial(baselines.noise, sigma=sigma)),
            "interpolation": baselines.Baseline(baselines.interpolation, raw=True),
            "soup": baselines.Baseline(partial(baselines.soup, m=m), raw=True),
            "gaussian": baselines.Baseline(baselines.gaussian),
            "pca_gaussian": baselines.Baseline(partial(baselines.pca_gaussian, components=components)),
            "kde": baselines.Baseline(partial(baselines.kde, share=share)),
        }
        if kind not in kinds:
            raise ParamgenError(f"no baseline {kind!r}; {near(kind, kinds)}")
        self.kind, self.baseline = kind, kinds[kind]
        self.register_buffer("networks", torch.zeros(num_networks, seq_len, token_dim))
        self.register_buffer("accuracy", torch.zeros(num_networks))

    def setup(self, stage: str) -> None:
        """Refuse several devices, which have nothing to share."""
        super().setup(stage)
        if stage == "fit" and self.trainer.world_size > 1:
            raise ParamgenError(
                f"a baseline has nothing to train on {self.trainer.world_size} devices; give it one: --trainer.devices 1"
            )

    def on_fit_start(self) -> None:
        """Keep the training networks."""
        super().on_fit_start()
        data = data_of(self.trainer)
        entries = [data.zoo.entries[i] for i in data.train_indices]
        if self.kind == "kde" and any("train" not in entry.scores for entry in entries):
            raise ParamgenError(f"kde keeps the best on train, but zoo {data.zoo.name!r} records no train accuracies")
        self.networks.copy_(torch.cat([*data.training_networks().batches(50)]))
        self.accuracy.copy_(torch.tensor([e.scores.get("train", {}).get("score", 0.0) for e in entries]))

    def loss(self, batch: ParamBatch) -> dict[str, Tensor]:
        """Mean squared difference to the mean of the training networks, in standardised units; nothing reduces it."""
        mean, mask = self.networks.mean(0), self.token_mask()  # (L, D)
        if batch.token is not None:
            mean, mask = mean[batch.token], mask[batch.token]
        square = (batch.x - mean).square() * mask  # (B, L', D)
        return {"loss": square.sum() / (len(batch.x) * mask.sum()).clamp_min(1)}

    def sample_tokens(self, request: SampleRequest) -> Drawn:
        """New networks; with a generator on the CPU, those that a report's baseline of the same seed has."""
        assert self.codec is not None
        assert self.codec.spec is not None
        spec = self.codec.spec
        weights = spec.flatten_many(self.codec.decode_many(self.networks.cpu()))  # (K, P)
        pool = baselines.Pool(weights, self.accuracy.cpu(), tuple(t.numel for t in spec.tensors))
        drawn = baselines.draw_from(self.baseline, pool, spec, request.n, on_cpu(request.generator))  # (n, P)
        tokens = self.codec.encode_many([spec.unflatten(vector) for vector in drawn]).to(self.device)  # (n, L, D)
        if request.temperature != 1:
            tokens = torch.lerp(self.networks.mean(0).expand_as(tokens), tokens, request.temperature)
        return Drawn(tokens)

    def backward(self, loss: Tensor) -> None:
        """Nothing depends on the loss."""

    def configure_optimizers(self) -> None:
        """None: there is nothing to train."""
