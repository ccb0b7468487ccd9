"""RPG, recurrent diffusion (Wang et al. 2025, arXiv:2501.11587).

A recurrent model turns positions and a permutation state into one prototype per token (:mod:`paramgen.nn.prototypes`); a diffusion model
shared by all tokens turns noise into the token, given its prototype (:mod:`paramgen.nn.token_heads`). Given the prototypes, tokens are
independent of each other: only the state makes them consistent.

B networks, L tokens, D token size, K training networks, R runs, S distinct keys (states and conditions, W numbers) at hand, M tokens the
head sees at once, z: prototypes (S, L, d_model), c: prototypes as the head takes them.

Departs from the authors' code: an explicit mask where they pad with NaN; prototypes once per distinct state; one-hot states that stay
fixed, as in the paper, where the code trains one row a checkpoint from equal starts (`state_embedding: trained` comes nearest); every
solver step at its own noise level.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from paramgen.core.devices import to_device
from paramgen.diffusion import Denoiser, Trajectory
from paramgen.errors import ParamgenError, require_choice, require_positive
from paramgen.generators.base import Denoised, ParameterGenerator
from paramgen.generators.batches import NetworkTokens, ParamBatch
from paramgen.generators.optim import check_optimizer, one_phase
from paramgen.generators.recipe import Facts, power_of_two
from paramgen.generators.sampling import Drawn, SampleRequest, on_cpu
from paramgen.generators.settings import ConditionSettings, DiffusionSettings, OptimizerSettings, settings
from paramgen.nn.condition import ConditionInput, guided
from paramgen.nn.positions import Position, Positions
from paramgen.nn.prototypes import Prototypes, distinct, of_first
from paramgen.nn.recurrence import MambaStack, RecurrenceSettings
from paramgen.nn.states import StateSettings, known
from paramgen.nn.token_heads import HeadSettings

Sampling = Literal["sequential", "partial", "full"]
CONDITION, RECURRENCE, STATE, HEAD = ConditionSettings(), RecurrenceSettings(), StateSettings(), HeadSettings()
DIFFUSION = DiffusionSettings()
OPTIMIZER = OptimizerSettings(lr=3e-5, schedule="cosine", weight_decay=1e-5)
PIECE = 256  # tokens whose prototypes are in memory at once, unless sampling is full


class _Keys(NamedTuple):
    """What the prototypes of a batch follow from."""

    rows: Tensor  # (B',) networks of the batch, on the CPU
    keys: Tensor  # (S, W) their distinct states and conditions
    which: Tensor  # (B',) which of them each network has


class RPG(ParameterGenerator):
    """Recurrent parameter generation.

    Args:
        seq_len: L, from the data.
        token_dim: D, from the data.
        num_networks: K, from the data.
        num_runs: R, from the data.
        cond_dim: C, width of a condition, from the data; 0 for none.
        condition: Training and sampling with a condition.
        condition_tokens: Number of last tokens that get the condition. Default: all.
        recurrence: The recurrent model.
        position: ``layer`` (which tensor, where in it), ``index`` (front to back), ``learned`` (starts as ``layer``).
        state: The permutation states.
        head: The denoiser of single tokens.
        diffusion: Noise schedule, prediction and default solver.
        tokens_per_step: Maximum number of tokens in the diffusion batch, drawn at random from the batch. Default: all.
        states_per_step: Maximum number of distinct states per batch; networks of other states are dropped. Fewer sequences then feed many
            tokens. Default: all.
        draws_per_token: Noise draws per selected token.
        sampling: Tokens denoised at once: one position of every network (``sequential``), about 256 tokens (``partial``), or all
            (``full``). With the first two, device memory does not grow with the number of parameters.
        optimizer: AdamW and its learning rate.

    Raises:
        ParamgenError: Incompatible sizes, an unknown choice, or a required library that is missing.
    """

    shape: tuple[int, int]
    has_solver = has_guidance = True

    def __init__(
        self,
        seq_len: int,
        token_dim: int,
        num_networks: int,
        num_runs: int = 1,
        cond_dim: int = 0,
        condition: ConditionSettings = CONDITION,
        condition_tokens: int | None = None,
        recurrence: RecurrenceSettings = RECURRENCE,
        position: Position = "layer",
        state: StateSettings = STATE,
        head: HeadSettings = HEAD,
        diffusion: DiffusionSettings = DIFFUSION,
        tokens_per_step: int | None = None,
        states_per_step: int | None = None,
        draws_per_token: int = 1,
        sampling: Sampling = "partial",
        optimizer: OptimizerSettings = OPTIMIZER,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        require_choice(Sampling, sampling=sampling)
        require_positive(
            tokens_per_step=tokens_per_step,
            states_per_step=states_per_step,
            draws_per_token=draws_per_token,
            condition_tokens=condition_tokens,
        )
        condition = settings(CONDITION, condition, "condition")
        recurrence = settings(RECURRENCE, recurrence, "recurrence")
        state = settings(STATE, state, "state")
        diffusion = settings(DIFFUSION, diffusion, "diffusion")
        self.optimizer_settings = settings(OPTIMIZER, optimizer, "optimizer")
        self.shape, self.state = (seq_len, token_dim), state.kind
        self.tokens_per_step, self.states_per_step = tokens_per_step, states_per_step
        self.draws_per_token = draws_per_token
        self.guidance_scale, self.cond_dim, self.has_states = condition.guidance_scale, cond_dim, state.kind != "none"
        self.scheduler, self.num_inference_steps = diffusion.scheduler, diffusion.num_inference_steps
        self.sampling, self.sample_state = sampling, state.sample
        self.diffusion = diffusion.make()
        widths = recurrence.widths
        self.prototypes = Prototypes(
            Positions(position, torch.zeros(seq_len, 2, dtype=torch.long), widths[0]),
            state.make(num_networks, num_runs, widths[0]),
            ConditionInput(cond_dim, widths[0], condition.dropout) if cond_dim else None,
            recurrence.make(),
            condition_tokens,
        )
        self.head = settings(HEAD, head, "head").make(token_dim, widths[-1])

    @classmethod
    def recipe(cls, facts: Facts) -> dict[str, Any]:
        """Tokens and widths that follow the parameters, rates that follow the widths, states and steps that follow the runs."""
        runs = 1 if facts.conditional else facts.runs
        one = runs == 1
        token_dim = power_of_two(facts.parameters / (20 if one else 40), 64, 16384)
        width = max(128, token_dim // 2 if one else token_dim)
        return {
            "model.recurrence.d_model": [width, width],
            "model.state.kind": "none" if facts.conditional else "checkpoint" if one else "run",
            "model.head.hidden": width,
            "model.optimizer.lr": round((2e-3 if one else 3e-3) * (128 / width) ** 0.5, 6),
            "data.codec.token_dim": token_dim,
            "data.codec.normalisation": "centre" if one else "layer",
            "data.batch_size": 20 if facts.conditional or not one else 8,
            "trainer.max_steps": 350 if one else 300 + 10 * runs,
        }

    def loss(self, batch: ParamBatch) -> dict[str, Tensor]:
        """Masked mean squared error of the head on some tokens of the batch."""
        x, mask = batch.x, self.token_mask()  # (B, L', D), (L, D)
        rows, keys, which = self._keys(batch, self.states_per_step)
        if len(rows) < len(x):
            x = x[to_device(rows, x.device)]
        z = self.prototypes(keys)  # (S, L, d_model)
        if batch.token is not None:
            z, mask = z[:, batch.token], mask[batch.token]  # (S, L', d_model), (L', D)
        network, place = self._choose(x.shape[0], x.shape[1])  # (M,), (M,)
        c = self._project(z, which[network], place)  # (M, ...)
        x0, mask = x[network, place], mask[place]  # (M, D)
        if (draws := self.draws_per_token) > 1:
            c, x0, mask = (v.repeat(draws, 1) for v in (c, x0, mask))
        return {"loss": self.diffusion.loss(partial(self._denoise, c), x0, mask)}

    def denoised(self, batch: ParamBatch, from_noise: bool = False) -> Denoised:
        """Predictions of whole networks, all tokens of one at one step."""
        if batch.token is not None:
            raise ParamgenError("the behavioural loss needs complete networks: remove data.tokens_per_step")
        _, keys, which = self._keys(batch)
        c = self.head.project(self.prototypes(keys))[which].flatten(0, 1)  # (B L, ...)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            predicted: Tensor = self.head(x_t.flatten(0, 1), t.repeat_interleave(x_t.shape[1]), c).view_as(x_t)
            return predicted

        return Denoised(*self.diffusion.predict(denoise, batch.x, from_noise=from_noise))

    def _keys(self, batch: ParamBatch, most: int | None = None) -> "_Keys":
        """Distinct states and conditions of a batch, the first `most` of them; all that is decided here is on the CPU."""
        B, entry, unknown = len(batch.x), self.prototypes.condition, torch.full_like(batch.index, -1)
        state = {"checkpoint": batch.index, "run": batch.run}.get(self.state, unknown)  # (B,)
        kept = None if entry is None or batch.condition is None else entry.kept(B)  # (B,)
        same = torch.zeros(B, dtype=torch.long) if batch.condition is None else batch.same
        same = torch.arange(B) if same is None else same
        things = torch.stack([state, same if kept is None else torch.where(kept, same, -1)], 1)  # (B, 2)
        rows = torch.arange(B) if most is None else of_first(things, most)  # (B',)
        first, which = distinct(things[rows])
        first = rows[first]  # (S,)
        given = None if batch.condition is None else batch.condition[to_device(first, self.device)]
        weights = to_device(self.prototypes.states.weights(state[first]), self.device)  # (S, K)
        keys = self.prototypes.keys(weights, given, None if kept is None else kept[first])
        return _Keys(rows, keys, to_device(which, self.device))

    def _choose(self, B: int, L: int) -> tuple[Tensor, Tensor]:
        """Which tokens of the batch the head sees: network (M,) and place (M,)."""
        flat = torch.arange(B * L, device=self.device)
        if self.tokens_per_step is not None and self.tokens_per_step < B * L:
            flat = torch.randperm(B * L, device=self.device)[: self.tokens_per_step]
        return flat.div(L, rounding_mode="floor"), flat % L

    def _project(self, z: Tensor, which: Tensor, place: Tensor) -> Tensor:
        """Projected prototypes of M tokens; whichever is fewer is projected: the tokens, or the prototypes at hand."""
        if len(which) < z.shape[0] * z.shape[1]:
            return self.head.project(z[which, place])
        return self.head.project(z)[which, place]

    def _denoise(self, c: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        predicted: Tensor = self.head(x_t.flatten(0, -2), t, c).view_as(x_t)
        return predicted

    def sample_tokens(self, request: SampleRequest) -> Drawn:
        """New networks, all together.

        Raises:
            ParamgenError: A state out of range, or a condition that does not fit.
        """
        prototypes, (L, D), n = self.prototypes, self.shape, request.n
        asked = self.sample_state if request.state is None else request.state
        draw = None if request.generator is None else on_cpu(request.generator)
        wanted = list(request.wanted)
        weights = prototypes.states.asked(n, asked, draw)  # (n, K)
        scale = 1.0 if request.guidance_scale is None else request.guidance_scale
        keys, which = self._distinct(weights, request.condition)
        if scale != 1:  # the same without the condition follows
            without, which_without = self._distinct(weights, None)
            which_without = to_device((which_without + len(keys))[wanted], self.device)
            keys = torch.cat([keys, without])
        weights, which = weights[wanted], to_device(which[wanted], self.device)
        at_once = {"sequential": 1, "partial": max(1, PIECE // n), "full": L}[self.sampling]
        mask = self.token_mask()
        out = torch.empty(len(wanted), L, D, device=self.device if at_once == L else "cpu")
        paths: list[list[Tensor]] = []  # of each piece, states (m, l, D)
        for place, z in prototypes.pieces(keys, L if at_once == L else PIECE, at_once):
            projected = self.head.project(z)  # (S, l, ...)
            denoise: Denoiser = partial(self._denoise, projected[which].flatten(0, 1))
            if scale != 1:
                apart = partial(self._denoise, projected[which_without].flatten(0, 1))
                denoise = guided(denoise, apart, scale)
            path = Trajectory() if request.keep_trajectory else None
            piece = request.between(place / L, (place + z.shape[1]) / L)
            tokens = self._solve(piece, denoise, (n, z.shape[1], D), path)
            if path is not None:
                paths.append(path.states)
            out[:, place : place + z.shape[1]] = tokens.to(out.device)
        states = [torch.cat(pieces, 1) * mask for pieces in zip(*paths, strict=True)]
        return Drawn(
            out.mul_(mask.to(out.device)),
            identity=self._places(weights, "networks") if self.state == "checkpoint" else None,
            run=self._places(weights, "runs") if self.state == "run" else None,
            trajectory=torch.stack(states) if states else None,
        )

    def _distinct(self, weights: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Distinct keys (S, W) among states (n, K), on the CPU, and conditions (n, C) or none; which each has (n,), on the CPU."""
        given = torch.zeros(len(weights), 1) if condition is None else condition.cpu().float()
        first, which = distinct(torch.cat([weights, given], 1))
        condition = None if condition is None else condition[to_device(first, self.device)]
        return self.prototypes.keys(to_device(weights[first], self.device), condition), which

    def _solve(
        self, request: SampleRequest, denoise: Denoiser, shape: tuple[int, ...], path: Trajectory | None
    ) -> Tensor:
        """Tokens of `shape` from noise, as asked for."""
        assert request.scheduler is not None
        assert request.num_inference_steps is not None
        return self.diffusion.sample(
            denoise,
            shape,
            scheduler=request.scheduler,
            num_inference_steps=request.num_inference_steps,
            temperature=request.temperature,
            generator=request.generator,
            device=self.device,
            callback=request.watch(path),
            rows=request.rows,
        )

    def _places(self, weights: Tensor, what: str) -> list[int | None]:
        """The training network or run of each state (n, K), by its place in the zoo's train split."""
        places = self.zoo_info.get(what) or []
        if len(places) < weights.shape[1]:
            raise ParamgenError(f"the checkpoint knows {len(places)} {what} of its zoo and {weights.shape[1]} states")
        return [None if state is None else places[state] for state in known(weights)]

    def setup(self, stage: str) -> None:
        """Take the places of the tokens from the codec."""
        super().setup(stage)
        if stage == "fit":
            check_optimizer(self, self.optimizer_settings.name)
        positions = self.prototypes.positions
        if self.codec is not None and not torch.equal(positions.places.cpu(), self.codec.positions):
            positions.place(self.codec.positions)

    def blocks(self) -> list[nn.Module]:
        """The layers of the recurrent model, which have nearly all weights."""
        recurrence = self.prototypes.recurrence
        return [*recurrence.layers] if isinstance(recurrence, MambaStack) else [recurrence]

    def begin(self, networks: NetworkTokens) -> None:
        """Standardise conditions."""
        if self.prototypes.condition is not None and networks.conditions is not None:
            self.prototypes.condition.standardise(networks.conditions)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW without decay on norms, biases and the scans' own parameters."""
        return one_phase(self, self.optimizer_settings)
