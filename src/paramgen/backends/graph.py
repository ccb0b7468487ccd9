"""Graph diffusion: a diffusion model of whole networks that knows which hidden units may change places.

The denoiser is equivariant (:mod:`paramgen.nn.graph`), so networks from many seeds need no alignment: a permuted network is as likely as
the original. The symmetries are read from the network's graph (:class:`paramgen.symmetry.PermutationSpec`).

x: networks (B, P), the numbers of a batch's tokens without padding. Units, pairs and rest are :class:`UnitParts` of them.
"""

from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from paramgen.diffusion import Learned, Trajectory
from paramgen.errors import ParamgenError
from paramgen.generators.base import Denoised, ParameterGenerator
from paramgen.generators.batches import NetworkTokens, ParamBatch
from paramgen.generators.optim import one_phase
from paramgen.generators.sampling import Drawn, SampleRequest
from paramgen.generators.settings import DiffusionSettings, OptimizerSettings, settings
from paramgen.nn.graph import GraphSettings
from paramgen.symmetry.layout import UnitLayout, UnitParts

GRAPH = GraphSettings()
DIFFUSION = DiffusionSettings(
    beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", scheduler="DDPM", num_inference_steps=30
)
OPTIMIZER = OptimizerSettings(lr=3e-3, schedule="cosine", warmup_steps=50, weight_decay=1e-2)
NETWORKS_AT_ONCE = 50  # networks encoded or sampled at once


class GraphDiffusion(ParameterGenerator):
    """Diffusion of whole networks, equivariant to permutations of their hidden units.

    Args:
        seq_len: L, from the data.
        token_dim: D, from the data.
        layout: Where the hidden units are, from the data.
        denoiser: The network that denoises.
        diffusion: Noise schedule, prediction and default solver.
        optimizer: Optimizer.

    Raises:
        ParamgenError: An unknown choice, a size below 1; when a fit starts, a network whose hidden units cannot be identified.
    """

    shape: tuple[int, int]
    has_solver = True
    centre: Tensor  # (P,) mean of each number, the same for all units of a group
    places: Tensor  # (P,) where the numbers are among the L D of the tokens

    def __init__(
        self,
        seq_len: int,
        token_dim: int,
        layout: dict[str, Any] | None = None,
        denoiser: GraphSettings = GRAPH,
        diffusion: DiffusionSettings = DIFFUSION,
        optimizer: OptimizerSettings = OPTIMIZER,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.shape = (seq_len, token_dim)
        diffusion = settings(DIFFUSION, diffusion, "diffusion")
        self.optimizer_settings = settings(OPTIMIZER, optimizer, "optimizer")
        self.scheduler, self.num_inference_steps = diffusion.scheduler, diffusion.num_inference_steps
        self.diffusion = diffusion.make()
        if layout is None:
            raise ParamgenError("model.layout is missing; it comes from the data: ParameterDataModule.layout")
        self.layout = UnitLayout.from_dict(layout)
        shapes = (self.layout.unit_shapes, self.layout.pair_shapes, self.layout.rest_size)
        self.denoiser = settings(GRAPH, denoiser, "denoiser").make(*shapes)
        self._last: tuple[ParamBatch, Learned] | None = None
        self.register_buffer("centre", torch.zeros(self.layout.size))
        self.register_buffer("places", torch.arange(self.layout.size), persistent=False)

    def setup(self, stage: str) -> None:
        """Find the numbers among the tokens."""
        super().setup(stage)
        self._find_places()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Find the numbers among the tokens."""
        super().on_load_checkpoint(checkpoint)
        self._find_places()

    def _find_places(self) -> None:
        """Positions of the P numbers among the L D of the tokens."""
        if self.codec is None:
            return
        self.places = self.codec.mask.flatten().nonzero()[:, 0].to(self.device)  # (P,)
        if len(self.places) != self.layout.size:
            raise ParamgenError(
                f"model.layout describes networks of {self.layout.size} numbers, but the zoo's networks have {len(self.places)}"
            )

    def begin(self, networks: NetworkTokens) -> None:
        """Take the mean of every number over the networks and the units of its group."""
        total = torch.zeros_like(self.centre)
        for x in networks.batches(NETWORKS_AT_ONCE):
            total += self._flat(x.to(self.device)).sum(0)
        self.centre.copy_(self.layout.mean_over_units(total[None] / len(networks))[0])

    def loss(self, batch: ParamBatch) -> dict[str, Tensor]:
        """Mean squared error of the denoised networks."""
        learned = self._learn(batch)
        if self.training and self.behaviour is not None:
            self._last = batch, learned
        return {"loss": learned.error.mean()}

    def denoised(self, batch: ParamBatch, from_noise: bool = False) -> Denoised:
        """Networks predicted from noised ones: those of the last :meth:`loss`, where it was of the same batch."""
        last, self._last = self._last, None
        same = last is not None and last[0] is batch and not from_noise
        x, abar = (last[1] if last is not None and same else self._learn(batch, from_noise)).predicted
        return Denoised(self._tokens(x), abar)

    def _learn(self, batch: ParamBatch, from_noise: bool = False) -> Learned:
        if batch.token is not None:
            raise ParamgenError("GraphDiffusion needs complete networks: remove data.tokens_per_step")
        return self.diffusion.learn(self._denoise, self._flat(batch.x) - self.centre, from_noise=from_noise)

    def sample_tokens(self, request: SampleRequest) -> Drawn:
        """New networks, some at a time."""
        assert request.scheduler is not None
        assert request.num_inference_steps is not None
        chunks, kept = list[Tensor](), Trajectory()
        for part in request.parts(NETWORKS_AT_ONCE):
            x = self.diffusion.sample(
                self._denoise,
                (part.n, self.layout.size),
                scheduler=request.scheduler,
                num_inference_steps=request.num_inference_steps,
                temperature=request.temperature,
                generator=request.generator,
                device=self.device,
                callback=part.watch(kept if part.keep_trajectory else None),
                rows=part.rows,
            )
            chunks.append(self._tokens(x))
        states = torch.stack([self._tokens(x) for x in kept.states]) if kept.states else None
        return Drawn(torch.cat(chunks), trajectory=states)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW."""
        return one_phase(self, self.optimizer_settings, self.denoiser)

    def _denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """Prediction (B, P) of networks (B, P) at steps t (B,) or (1,)."""
        return self.layout.join(UnitParts(*self.denoiser(*self.layout.split(x), t)))

    def _flat(self, tokens: Tensor) -> Tensor:
        """Networks (B, P) of tokens (B, L, D), without padding."""
        return tokens.flatten(1)[:, self.places]

    def _tokens(self, x: Tensor) -> Tensor:
        """Tokens (B, L, D) of centred networks (B, P), zeros on the padding."""
        tokens = x.new_zeros(len(x), self.shape[0] * self.shape[1])
        return tokens.index_copy(1, self.places, x + self.centre).view(len(x), *self.shape)
