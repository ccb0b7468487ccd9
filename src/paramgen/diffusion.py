"""Diffusion (Ho et al. 2020, arXiv:2006.11239): the training loss, and sampling with diffusers' solvers.

x0: data (B, ...). eps: standard normal noise. t: step, 0 (almost clean) to T - 1 (almost noise). abar: cumulative product of 1 - beta (T,).
x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps. v = sqrt(abar_t) eps - sqrt(1 - abar_t) x0.

Flow matching (Lipman et al. 2023, arXiv:2210.02747) on the straight path of rectified flow (Liu et al. 2023, arXiv:2209.03003) is a
prediction type of its own: x_t = (1 - sigma) x0 + sigma eps with sigma = (t + 1) / T, and the network answers the velocity eps - x0.

Departs from a plain diffusers loop: a solver is built on the n chosen steps alone (abar respaced, as in Nichol and Dhariwal 2021), because
DDIM takes the previous step to be t - T // n, which skips or repeats noise levels whenever n does not divide T; nothing is clipped, because
weights are not images in [-1, 1]; cosine ends at the noise of linear (see COSINE_FLOOR).
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, NamedTuple

import diffusers
import torch
from torch import Tensor

from paramgen.core.devices import to_device
from paramgen.errors import ParamgenError, did_you_mean, require_choice, require_non_negative, require_positive

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
PredictionType = Literal["epsilon", "sample", "v_prediction", "flow"]
TimestepSampling = Literal["uniform", "logit_normal"]
Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``denoise(x_t, t)``: x_t (B, ...), t (B,) in training and (1,) in sampling; returns the prediction, shaped like x_t."""

SCHEDULERS = (
    "DDPM",
    "DDIM",
    "DPMSolverMultistep",
    "UniPCMultistep",
    "EulerDiscrete",
    "EulerAncestralDiscrete",
    "HeunDiscrete",
    "LMSDiscrete",
)
"""Diffusers' schedulers that sample here, by class name without ``Scheduler``; flow has its own. Left out: PNDM averages raw
predictions, which biases v; DEIS and SASolver end above zero noise; DPMSolverSinglestep fails at 1 step; KDPM2 stops between levels; LCM is
for distilled networks."""

FLOW_SCHEDULERS = ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete")
"""Diffusers' schedulers that sample with ``prediction_type`` flow."""

COSINE_FLOOR = 3.7e-5
"""The cosine schedule's abar is lifted to end here, where linear, 1e-4 to 2e-2, ends too, instead of at 2.4e-9: there
x0 = (x_t - sigma eps) / sqrt(abar) multiplies the network's error by 20,000, and the solvers that work in sigma diverge."""

_OWN_NOISE = ("EulerAncestralDiscrete",)  # draws noise inside, unscaled
_NO_SAMPLE = ("EulerAncestralDiscrete", "HeunDiscrete")  # take epsilon and v alone


class Noised(NamedTuple):
    """A noised batch and the network's target."""

    x_t: Tensor  # (B, ...)
    t: Tensor  # (B,) long
    eps: Tensor  # (B, ...)
    target: Tensor  # (B, ...)


class Level(NamedTuple):
    """Factors of the data and of the noise in x_t."""

    signal: Tensor  # (B,)
    sigma: Tensor  # (B,)

    def over(self, dims: int) -> "Level":
        """The same as (B, 1, ...), for data of `dims` dimensions."""
        return Level(*(factor.view(-1, *[1] * (dims - 1)) for factor in self))


class Predicted(NamedTuple):
    """A network's prediction of the clean data."""

    x0: Tensor  # (B, ...), float32
    abar: Tensor  # (B,) share of the data's variance in x_t; on the CPU


class Learned(NamedTuple):
    """What one answer of the network gives: its error, and the clean data that it implies."""

    error: Tensor  # (B, ...) squared, float32
    predicted: Predicted


class Trajectory:
    """Keeps a few states of a few rows on their way from noise to sample: a callback for :meth:`Diffusion.sample`.

    Args:
        rows: Number of rows to keep (the first ones).
        most: Maximum number of states, evenly spread. The first is noise, the last the sample.
    """

    def __init__(self, rows: int = 6, most: int = 10) -> None:
        self.rows, self.most = rows, most
        self.states: list[Tensor] = []  # each (rows, ...)

    def __call__(self, done: float, x: Tensor) -> None:
        """Keep `x` (B, ...) if a state is due; `done` is the share of the steps done."""
        if done * (self.most - 1) >= len(self.states):
            self.states.append(x[: self.rows].clone())


@dataclass(frozen=True)
class Diffusion:
    """A noise schedule and what the network predicts; no weights, no state between calls.

    Args:
        num_train_timesteps: T, the number of noise levels.
        beta_schedule: ``linear``, ``scaled_linear`` or ``squaredcos_cap_v2`` (cosine; ignores both betas). Not used by flow.
        beta_start: First beta.
        beta_end: Last beta.
        prediction_type: What the network answers: ``epsilon`` (the noise), ``sample`` (x0), ``v_prediction`` or ``flow`` (the velocity
            of a straight path from data to noise).
        timestep_sampling: Distribution of the steps in training: ``uniform``, or ``logit_normal`` (more steps half-way between data
            and noise, as in Esser et al. 2024, arXiv:2403.03206). Default: logit_normal for flow, otherwise uniform, as measured in
            docs/diffusion.md.
    """

    num_train_timesteps: int = 1000
    beta_schedule: BetaSchedule = "linear"
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    prediction_type: PredictionType = "epsilon"
    timestep_sampling: TimestepSampling | None = None
    _abar: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_positive(num_train_timesteps=self.num_train_timesteps)
        require_choice(BetaSchedule, "diffusion.", beta_schedule=self.beta_schedule)
        require_choice(PredictionType, "diffusion.", prediction_type=self.prediction_type)
        require_choice(Literal[TimestepSampling, None], "diffusion.", timestep_sampling=self.timestep_sampling)

    @property
    def schedulers(self) -> tuple[str, ...]:
        """The schedulers that sample with this prediction type."""
        return FLOW_SCHEDULERS if self.prediction_type == "flow" else SCHEDULERS

    @property
    def _distribution(self) -> TimestepSampling:
        """Distribution of the steps in training."""
        return self.timestep_sampling or ("logit_normal" if self.prediction_type == "flow" else "uniform")

    def level(self, t: Tensor) -> Level:
        """How much data and noise x_t holds at steps t (B,)."""
        if self.prediction_type == "flow":
            sigma = (t + 1) / self.num_train_timesteps
            return Level(1 - sigma, sigma)
        abar = self.alphas_cumprod(t.device)[t]
        return Level(abar.sqrt(), (1 - abar).sqrt())

    def alphas_cumprod(self, device: torch.device | str = "cpu") -> Tensor:
        """The beta schedule's cumulative product abar (T,), float32 on `device`."""
        device = torch.device(device)
        if device not in self._abar:
            schedule = diffusers.DDPMScheduler(
                self.num_train_timesteps, self.beta_start, self.beta_end, self.beta_schedule
            )
            abar = schedule.alphas_cumprod
            if self.beta_schedule == "squaredcos_cap_v2":
                abar = COSINE_FLOOR + (1 - COSINE_FLOOR) * abar
            self._abar[device] = abar.to(device)
        return self._abar[device]

    def noise(self, x0: Tensor, t: Tensor | None = None, generator: torch.Generator | None = None) -> Noised:
        """Noise each row of `x0` at its own step.

        Args:
            x0: (B, ...).
            t: (B,) long, on the CPU or with `x0`; drawn when not given, as ``timestep_sampling`` says.
            generator: Where steps and noise come from; the global state when not given. It may live on the CPU.
        """
        t = to_device(self._draw_steps(len(x0), generator) if t is None else t, x0.device)
        clean = x0.float()
        eps = _randn(x0.shape, generator, x0.device)  # (B, ...)
        signal, sigma = self.level(t).over(x0.dim())  # (B, 1, ...)
        x_t = signal * clean + sigma * eps
        if self.prediction_type == "epsilon":
            target = eps
        elif self.prediction_type == "sample":
            target = clean
        elif self.prediction_type == "flow":
            target = eps - clean
        else:
            target = signal * eps - sigma * clean
        return Noised(x_t.to(x0.dtype), t, eps, target)

    def _draw_steps(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Random training steps (n,) long, drawn where the generator lives; on the CPU, where the host can read them, without one."""
        drawn_on = torch.device("cpu") if generator is None else generator.device
        if self._distribution == "uniform":
            return torch.randint(self.num_train_timesteps, (n,), generator=generator, device=drawn_on)
        progress = torch.randn(n, generator=generator, device=drawn_on).sigmoid()  # from data to noise
        return (progress * self.num_train_timesteps).long().clamp_max(self.num_train_timesteps - 1)

    def loss(
        self, denoise: Denoiser, x0: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean squared error of the network's prediction, a scalar; padding does not count.

        Args:
            denoise: The network.
            x0: (B, ...).
            mask: Broadcasts to x0, ``False`` on padding.
            generator: See :meth:`noise`.
        """
        x_t, t, _, target = self.noise(x0, generator=generator)
        error = (denoise(x_t, t).float() - target).square()  # (B, ...)
        if mask is None:
            return error.mean()
        mask = mask.expand_as(error)
        return (error * mask).sum() / mask.sum().clamp_min(1)

    def predict(
        self, denoise: Denoiser, x0: Tensor, generator: torch.Generator | None = None, from_noise: bool = False
    ) -> Predicted:
        """Noise each row of `x0` at its own random step and say what data the network takes it for, with gradients.

        Args:
            denoise: The network.
            x0: (B, ...).
            generator: See :meth:`noise`.
            from_noise: Noise every row at the last step instead, where a solver begins.
        """
        return self.learn(denoise, x0, generator, from_noise).predicted

    def learn(
        self, denoise: Denoiser, x0: Tensor, generator: torch.Generator | None = None, from_noise: bool = False
    ) -> Learned:
        """As :meth:`predict`, and the error of the same answer: for a loss on both, with one pass through the network."""
        last = torch.full(x0.shape[:1], self.num_train_timesteps - 1)
        steps = last if from_noise else self._draw_steps(len(x0), generator)  # (B,)
        x_t, t, _, target = self.noise(x0, steps, generator)
        out = denoise(x_t, t).float()  # (B, ...)
        error = (out - target).square()
        signal, sigma = self.level(t).over(x0.dim())  # (B, 1, ...)
        if self.prediction_type == "epsilon":
            out = (x_t - sigma * out) / signal
        elif self.prediction_type == "v_prediction":
            out = signal * x_t - sigma * out
        elif self.prediction_type == "flow":
            out = x_t - sigma * out
        data, noise = (part.square() for part in self.level(steps))  # (B,)
        return Learned(error, Predicted(out, data / (data + noise)))

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoiser,
        shape: tuple[int, ...],
        *,
        scheduler: str = "DDIM",
        num_inference_steps: int = 50,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
        callback: Callable[[float, Tensor], None] | None = None,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """Draw x0 from noise: `shape`, float32; or n of its N rows.

        Args:
            denoise: The network, for n rows.
            shape: (N, ...).
            scheduler: One of :attr:`schedulers`.
            num_inference_steps: Steps of the solver, 1 to T, evenly spread and starting from T - 1.
            temperature: Scales the initial noise and the noise that the solver adds; below 1 samples are closer to the mode.
            generator: Where noise comes from; the global state when not given. It may live on the CPU.
            device: Where to sample.
            callback: Called as ``callback(done, x_t)`` before each of the solver's steps and with x0 at the end; `done` goes from 0 to 1.
            rows: The n rows to draw, from the noise that they would have among all N. Default: all.

        Raises:
            ParamgenError: A scheduler that does not exist, does not fit the prediction type or whose noise cannot be scaled or
                divided, or too many steps.
        """
        name = self.check(scheduler, num_inference_steps, temperature)
        grid = self._grid(num_inference_steps)  # (n,) long, falling from T - 1
        solver, predicts = self._solver(name, grid)
        options: dict[str, Any] = {"generator": generator} if name in _OWN_NOISE else {}
        steps = grid.to(device)
        n, P = shape[0] if rows is None else len(rows), prod(shape[1:])
        shape, flat, everything = (n, *shape[1:]), (n, P), (shape[0], P)  # UniPC wants (N, P)
        if rows is not None and name in _OWN_NOISE:
            raise ParamgenError(f"{name} draws noise that shards cannot divide. Available: {self._scalable}")

        def noise() -> Tensor:
            drawn = _randn(everything, generator, device)
            return drawn if rows is None else drawn[list(rows)]

        # the solvers of flow have no scales of their own
        scale = getattr(solver, "scale_model_input", lambda x, _: x)
        x = noise() * (temperature * float(getattr(solver, "init_noise_sigma", 1)))  # (N, P)
        for count, index in enumerate(solver.timesteps):  # n levels, falling by 1 to the last; Heun visits most twice
            t = steps[num_inference_steps - 1 - round(float(index - solver.timesteps[-1]))].view(1)
            x_t = scale(x, index)  # (N, P)
            if callback is not None:
                callback(count / len(solver.timesteps), x_t.view(shape))
            out = denoise(x_t.view(shape), t).float().reshape(flat) if n else x_t
            if predicts != self.prediction_type:
                out = _sample_to_v(out, x_t, self.alphas_cumprod(device)[t])
            if name == "DDPM":
                options = {"eta": 1.0, "variance_noise": temperature * noise()}
            x = solver.step(out, index, x, **options).prev_sample
        if callback is not None:
            callback(1.0, x.view(shape))
        return x.view(shape)

    def check(self, scheduler: str, steps: int, temperature: float = 1.0) -> str:
        """The scheduler's name in :attr:`schedulers`, for what :meth:`sample` is to be called with.

        Raises:
            ParamgenError: As :meth:`sample`.
        """
        name = scheduler.removesuffix("Scheduler")
        if name not in (*SCHEDULERS, *FLOW_SCHEDULERS):
            everything = did_you_mean(name, self.schedulers, limit=len(self.schedulers))
            raise ParamgenError(f"Unknown scheduler {scheduler!r}. {everything}")
        if name not in self.schedulers:
            raise ParamgenError(
                f"scheduler {name} does not solve prediction_type {self.prediction_type}. Available: {', '.join(self.schedulers)}"
            )
        if not 1 <= steps <= self.num_train_timesteps:
            raise ParamgenError(
                f"num_inference_steps is {steps}, expected 1 to num_train_timesteps = {self.num_train_timesteps}"
            )
        require_non_negative(temperature=temperature)
        if temperature != 1 and name in _OWN_NOISE:
            raise ParamgenError(f"{name} draws noise that temperature cannot scale. Available: {self._scalable}")
        return name

    @property
    def _scalable(self) -> str:
        """The solvers that take their noise from outside."""
        return ", ".join(s for s in self.schedulers if s not in _OWN_NOISE)

    def _grid(self, n: int) -> Tensor:
        """The steps used, (n,) long, falling, the first T - 1: diffusers' ``trailing`` spacing, free of its rounding."""
        t = torch.arange(n, dtype=torch.float64) * self.num_train_timesteps / n
        return (self.num_train_timesteps - t).round().long() - 1

    def _solver(self, name: str, grid: Tensor) -> tuple[Any, str]:
        """A fresh solver whose training steps are the grid's n steps, and what it expects the network to predict."""
        # DDIM with eta 1 is DDPM, and takes the noise from outside, so that temperature can scale it
        kind = getattr(diffusers, f"{'DDIM' if name == 'DDPM' else name}Scheduler")
        if self.prediction_type == "flow":  # its solvers know the path: sigma is 1, (n - 1) / n, ... 1 / n, 0
            solver = kind(num_train_timesteps=len(grid))
            solver.set_timesteps(len(grid))
            return solver, "flow"
        predicts = "v_prediction" if self.prediction_type == "sample" and name in _NO_SAMPLE else self.prediction_type
        n = len(grid)
        settings = {
            "num_train_timesteps": n,
            "prediction_type": predicts,
            "clip_sample": False,
            "thresholding": False,
            "timestep_spacing": "trailing",
            "set_alpha_to_one": True,
        }
        takes = inspect.signature(kind.__init__).parameters
        solver = kind(**{key: value for key, value in settings.items() if key in takes})
        solver.alphas_cumprod = self.alphas_cumprod()[grid.flip(0)].double()  # every set_timesteps reads it
        if "timesteps" in inspect.signature(solver.set_timesteps).parameters:
            solver.set_timesteps(timesteps=list(range(n - 1, -1, -1)))
        else:
            solver.set_timesteps(n)
        return solver, predicts


def _sample_to_v(x0: Tensor, x_t: Tensor, abar: Tensor) -> Tensor:
    """What a v-predicting network would have answered, for solvers that do not take x0."""
    return (abar.sqrt() * x_t - x0) / (1 - abar).sqrt()


def _randn(
    shape: tuple[int, ...] | torch.Size, generator: torch.Generator | None, device: torch.device | str
) -> Tensor:
    """Standard normal noise, float32, drawn where the generator lives and moved to `device`."""
    drawn_on = generator.device if generator is not None else device
    return torch.randn(shape, generator=generator, device=drawn_on).to(device)
