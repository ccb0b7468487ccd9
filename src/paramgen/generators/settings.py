"""Groups of arguments that backends share, as plain frozen dataclasses: nested sections of a YAML and of a checkpoint's hparams."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from paramgen.diffusion import BetaSchedule, Diffusion, PredictionType, TimestepSampling
from paramgen.errors import ParamgenError, did_you_mean, require_choice, require_non_negative, require_positive

Schedule = Literal["constant", "cosine", "linear"]
OptimizerName = Literal["adamw", "adamw8bit"]

T = TypeVar("T")


@dataclass(frozen=True)
class ConditionSettings:
    """Training and sampling with a condition.

    Args:
        dropout: Share of training conditions to drop, so that the generator can also sample without a condition.
        guidance_scale: Classifier-free guidance scale. Above 1 amplifies the condition; needs dropout.
    """

    dropout: float = 0.1
    guidance_scale: float = 1.0


@dataclass(frozen=True)
class DiffusionSettings:
    """Noise schedule, prediction and default solver.

    Args:
        num_train_timesteps: T, number of diffusion steps in training.
        beta_schedule: ``linear``, ``scaled_linear`` or ``squaredcos_cap_v2``. Not used by flow.
        beta_start: First beta.
        beta_end: Last beta.
        prediction_type: ``epsilon``, ``sample``, ``v_prediction`` or ``flow`` (flow matching).
        timestep_sampling: Distribution of the steps in training: ``uniform`` or ``logit_normal`` (more steps half-way to noise). Default:
            logit_normal for flow, otherwise uniform.
        scheduler: Solver for sampling, a diffusers scheduler such as DDPM or DDIM; with flow FlowMatchEulerDiscrete or
            FlowMatchHeunDiscrete.
        num_inference_steps: Solver steps.
    """

    num_train_timesteps: int = 1000
    beta_schedule: BetaSchedule = "linear"
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    prediction_type: PredictionType = "epsilon"
    timestep_sampling: TimestepSampling | None = None
    scheduler: str = "DDPM"
    num_inference_steps: int = 1000

    def make(self) -> Diffusion:
        """The diffusion.

        Raises:
            ParamgenError: An unknown choice, or steps that the solver cannot take.
        """
        diffusion = Diffusion(
            self.num_train_timesteps,
            self.beta_schedule,
            self.beta_start,
            self.beta_end,
            self.prediction_type,
            self.timestep_sampling,
        )
        diffusion.check(self.scheduler, self.num_inference_steps)
        return diffusion


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its learning rate.

    Args:
        lr: Peak learning rate.
        schedule: ``constant``, ``cosine`` or ``linear``; the last two fall to 0.
        warmup_steps: Steps of linear warm-up.
        weight_decay: Weight decay of matrices. Norms, biases and a scan's own parameters are not decayed.
        name: ``adamw``, or ``adamw8bit`` (needs bitsandbytes and CUDA).

    Raises:
        ParamgenError: An unknown choice, a rate that is not above 0, or a number below 0.
    """

    lr: float = 1e-3
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    weight_decay: float = 2e-6
    name: OptimizerName = "adamw"

    def __post_init__(self) -> None:
        require_choice(Schedule, "optimizer.", schedule=self.schedule)
        require_choice(OptimizerName, "optimizer.", name=self.name)
        require_positive("optimizer.", lr=self.lr)
        require_non_negative(**{f"optimizer.{n}": getattr(self, n) for n in ("warmup_steps", "weight_decay")})


def settings(default: T, given: T | Mapping[str, Any], name: str) -> T:
    """Settings given as an object or as plain values, which replace those of a default.

    Args:
        default: Settings for the fields that are not given.
        given: Of the same class, or a mapping of some of its fields.
        name: The argument's name, for messages.

    Raises:
        ParamgenError: A field that the class does not have.
    """
    if not isinstance(given, Mapping):
        return given
    names = [field.name for field in fields(default)]  # type: ignore[arg-type]  # T is a dataclass
    if unknown := [key for key in given if key not in names]:
        raise ParamgenError(f"Unknown setting {unknown[0]!r} of model.{name}. {did_you_mean(unknown[0], names)}")
    return replace(default, **given)  # type: ignore[type-var]


def plain_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with settings as dictionaries, for a checkpoint."""
    return {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in arguments.items()
    }
