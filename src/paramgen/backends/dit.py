"""A diffusion transformer over all tokens of a network (DiT: Peebles and Xie 2022, arXiv:2212.09748).

x: networks as tokens (B, L, D). The denoiser sees all noisy tokens of a network together. So the tokens of a sample fit together without a
permutation state; RPG's tokens are independent of each other given their prototypes.
Prompted by the loss to reach (``data.prompt``), and by the weights to start from (``data.start``), it is G.pt (Peebles et al. 2022,
arXiv:2209.12892), which predicts weights of a later step of training from those of an earlier one. Departs: G.pt also takes the loss of the
start; here the start is seen.
"""

from functools import partial

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from paramgen.diffusion import Denoiser, Trajectory
from paramgen.errors import ParamgenError
from paramgen.generators.base import Denoised, ParameterGenerator
from paramgen.generators.batches import NetworkTokens, ParamBatch
from paramgen.generators.optim import one_phase
from paramgen.generators.sampling import Drawn, SampleRequest
from paramgen.generators.settings import ConditionSettings, DiffusionSettings, OptimizerSettings, settings
from paramgen.nn.condition import guided
from paramgen.nn.mixing import MixingSettings
from paramgen.nn.transformer import TransformerSettings

CONDITION, DENOISER, MIXING = ConditionSettings(), TransformerSettings(), MixingSettings()
DIFFUSION = DiffusionSettings(
    beta_schedule="squaredcos_cap_v2", prediction_type="sample", scheduler="DDIM", num_inference_steps=30
)
OPTIMIZER = OptimizerSettings(schedule="cosine", warmup_steps=50, weight_decay=1e-2)
TOKENS_AT_ONCE = 2**15  # of generated networks


class DiT(ParameterGenerator):
    """A diffusion transformer over all tokens of a network.

    Args:
        seq_len: L, from the data.
        token_dim: D, from the data.
        cond_dim: C, width of a condition, from the data; 0 for none.
        start_weights: Whether it takes networks to start from; from the data.
        condition: Training and sampling with a condition.
        denoiser: The transformer.
        diffusion: Noise schedule, prediction and default solver.
        mixing: Training on mixtures of networks.
        optimizer: AdamW and its learning rate.

    Raises:
        ParamgenError: An unknown choice, or a size that does not fit.
    """

    shape: tuple[int, int]
    has_solver = has_guidance = True

    def __init__(
        self,
        seq_len: int,
        token_dim: int,
        cond_dim: int = 0,
        start_weights: bool = False,
        condition: ConditionSettings = CONDITION,
        denoiser: TransformerSettings = DENOISER,
        diffusion: DiffusionSettings = DIFFUSION,
        mixing: MixingSettings = MIXING,
        optimizer: OptimizerSettings = OPTIMIZER,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        condition = settings(CONDITION, condition, "condition")
        diffusion = settings(DIFFUSION, diffusion, "diffusion")
        self.optimizer_settings = settings(OPTIMIZER, optimizer, "optimizer")
        self.shape, self.cond_dim, self.guidance_scale = (seq_len, token_dim), cond_dim, condition.guidance_scale
        self.has_start, self.start_dropout = start_weights, condition.dropout
        self.scheduler, self.num_inference_steps = diffusion.scheduler, diffusion.num_inference_steps
        self.diffusion = diffusion.make()
        self.mixing = settings(MIXING, mixing, "mixing")
        if self.mixing.concentration and (cond_dim or start_weights):
            raise ParamgenError(
                "model.mixing is for zoos without conditions: a mixture of networks has no recorded score or task"
            )
        transformer = settings(DENOISER, denoiser, "denoiser")
        self.denoiser = transformer.make(seq_len, token_dim, cond_dim, condition.dropout, start_weights)

    def setup(self, stage: str) -> None:
        """Take the places of the tokens from the codec."""
        super().setup(stage)
        positions = self.denoiser.positions
        if self.codec is not None and not torch.equal(positions.places.cpu(), self.codec.positions):
            positions.place(self.codec.positions)

    def blocks(self) -> list[nn.Module]:
        """The transformer's layers."""
        return [*self.denoiser.layers]

    def begin(self, networks: NetworkTokens) -> None:
        """Standardise conditions."""
        if self.denoiser.condition is not None and networks.conditions is not None:
            self.denoiser.condition.standardise(networks.conditions)

    def loss(self, batch: ParamBatch) -> dict[str, Tensor]:
        """Mean squared error of the predicted tokens; padding does not count."""
        return {"loss": self.diffusion.loss(self._conditioned(batch), self._networks(batch), self.token_mask())}

    def denoised(self, batch: ParamBatch, from_noise: bool = False) -> Denoised:
        """Predictions of the networks of a batch."""
        return Denoised(*self.diffusion.predict(self._conditioned(batch), self._networks(batch), from_noise=from_noise))

    def _networks(self, batch: ParamBatch) -> Tensor:
        """What the denoiser learns: the networks of a batch, or mixtures of them."""
        return self.mixing.mix(batch.x) if self.training else batch.x

    def _conditioned(self, batch: ParamBatch) -> Denoiser:
        """The denoiser of a batch of training networks."""
        if batch.token is not None:
            raise ParamgenError("DiT needs complete networks: remove data.tokens_per_step")
        return self._under(batch.condition, self._marked(batch.start, len(batch.x)), len(batch.x))

    def _under(self, condition: Tensor | None, start: Tensor | None, n: int) -> Denoiser:
        """The denoiser of n networks under their conditions (n, C) and marked starts (n, L, D + 1)."""
        entry = self.denoiser.condition
        return partial(
            self.denoiser, marked=None if entry is None else entry.mark(condition, n, entry.kept(n)), start=start
        )

    def _marked(self, start: Tensor | None, n: int) -> Tensor | None:
        """Networks to start from, each token with a 1 (n, L, D + 1); all 0 without a start, also for some networks in training."""
        if not self.has_start:
            return None
        if start is None:
            if self.start_dropout == 0:
                raise ParamgenError("the generator needs start weights: it was fitted with condition.dropout 0")
            return torch.zeros(n, self.shape[0], self.shape[1] + 1, device=self.device)
        marked = torch.cat([start, start.new_ones(*start.shape[:2], 1)], -1)
        if not self.training or self.start_dropout == 0:
            return marked
        return marked * (torch.rand(n, 1, 1, device=marked.device) >= self.start_dropout)

    def sample_tokens(self, request: SampleRequest) -> Drawn:
        """New networks, as many at once as memory allows."""
        L, _ = self.shape
        rows, kept = max(1, TOKENS_AT_ONCE // L), Trajectory()
        pieces = [self._solve(part, kept if part.keep_trajectory else None) for part in request.parts(rows)]
        mask = self.token_mask()
        states = torch.stack(kept.states) * mask if kept.states else None
        return Drawn(torch.cat(pieces) * mask, trajectory=states)

    def _solve(self, request: SampleRequest, path: Trajectory | None) -> Tensor:
        """Tokens (n, L, D) of the wanted networks."""
        assert request.scheduler is not None
        assert request.num_inference_steps is not None
        condition, n = request.condition, len(request.wanted)
        start = self._marked(request.start, n)
        denoise = self._under(condition, start, n)
        if condition is not None and request.guidance_scale is not None and request.guidance_scale != 1:
            denoise = guided(denoise, self._under(None, start, n), request.guidance_scale)
        return self.diffusion.sample(
            denoise,
            (request.n, *self.shape),
            scheduler=request.scheduler,
            num_inference_steps=request.num_inference_steps,
            temperature=request.temperature,
            generator=request.generator,
            device=self.device,
            callback=request.watch(path),
            rows=request.rows,
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW without decay on biases."""
        return one_phase(self, self.optimizer_settings)
