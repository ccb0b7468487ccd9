"""The contract of backends and their shared code: training steps, self-contained checkpoints, sampling."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from paramgen import __version__
from paramgen.core.codec import ParamCodec
from paramgen.core.devices import forked_random
from paramgen.core.params import StateDict
from paramgen.core.samples import GeneratedNetworks, SampleInfo
from paramgen.core.seeds import mix
from paramgen.errors import DivergedError, ParamgenError
from paramgen.generators.batches import NetworkTokens, ParamBatch
from paramgen.generators.data import data_of, places
from paramgen.generators.prompts import prompt_ranges, prompt_row
from paramgen.generators.recipe import Facts
from paramgen.generators.restore import check_same_data
from paramgen.generators.sampling import Drawn, SampleRequest, one_for_each, some_rows
from paramgen.generators.settings import plain_arguments
from paramgen.generators.sharding import Shardable, class_of, not_finite


class Denoised(NamedTuple):
    """Complete networks of a batch, predicted from noised ones."""

    tokens: Tensor  # (B, L, D), with gradients
    signal: Tensor  # (B,) share of the networks' own variance in what was predicted from, 0 to 1; on the CPU


class Phase(NamedTuple):
    """A part of a fit."""

    name: str
    steps: int | None  # None: until the end of the fit


class Behaviour(Protocol):
    """A loss on the behaviour of predicted networks; see :mod:`paramgen.generators.behaviour`."""

    weight: float

    def loss(self, generator: "ParameterGenerator", batch: ParamBatch) -> Tensor:
        """A scalar."""


class ParameterGenerator(Shardable, ABC):
    """Learns a distribution over networks from their tokens and draws new ones.

    A backend is a subclass in ``backends/``: an ``__init__`` with plain arguments that calls ``save_hyperparameters()``, ``loss``,
    ``sample_tokens`` and ``configure_optimizers``. Its arguments ``seq_len``, ``token_dim``, ``cond_dim``, ``num_networks`` and
    ``num_runs``, those it has, come from the data.

    What it offers it declares, as attributes of the class or of the object: ``has_solver`` (samples start from noise, with ``scheduler``
    and ``num_inference_steps`` unless others are requested), ``has_states`` (known states to sample from), ``has_guidance`` (amplifies a
    condition by ``guidance_scale``), ``has_start`` (takes weights to start from), and ``cond_dim``, the numbers of the
    condition that it takes, of which the last are :attr:`prompts`.
    """

    shape: tuple[int, int] | None = None  # L and D of its tokens; other data are refused
    has_solver: bool = False
    scheduler: str | None = None
    num_inference_steps: int | None = None
    has_states: bool = False
    cond_dim: int = 0
    has_guidance: bool = False
    guidance_scale: float = 1.0
    has_start: bool = False

    codec: ParamCodec | None = None
    _mask: tuple[Tensor, Tensor] | None = None  # the codec's, and the same on this device
    base: StateDict
    zoo_info: dict[str, Any]  # name, path, checksum and task of the zoo, and which of its train split is learned
    fit_seconds: float = 0.0
    behaviour: Behaviour | None = None
    uses_task_data: bool = False
    fit_command: str | None = None  # set by the command line, kept in checkpoints
    fit_config: str | None = None
    history: dict[str, list[list[float]]] | None = None  # of the SampleQuality that watched the fit

    @abstractmethod
    def loss(self, batch: ParamBatch) -> dict[str, Tensor]:
        """Terms of the training loss; ``loss`` is what is minimised, all are logged."""

    @abstractmethod
    def sample_tokens(self, request: SampleRequest) -> Drawn:
        """New networks as tokens, all at once, and which of the zoo's they were conditioned on.

        Called through :meth:`draw`, which refuses unsupported requests and adds the settings used to the result.

        Args:
            request: What to draw. Solver, steps and guidance are set if the generator has them; the condition is on its device.
        """

    def denoised(self, batch: ParamBatch, from_noise: bool = False) -> Denoised:
        """The backend's predictions of complete networks, on which the behavioural loss is computed.

        Args:
            batch: Training networks.
            from_noise: Predict them from pure noise, as at the start of sampling, instead of from random noise levels.

        Raises:
            ParamgenError: The backend does not offer it.
        """
        raise ParamgenError(
            f"{type(self).__name__} has no behavioural loss: it does not predict whole networks in training"
        )

    def phases(self, networks: NetworkTokens) -> Iterator[Phase]:
        """The parts of a fit whose steps differ in cost, in order; a part has begun when it is taken. One part by default.

        Args:
            networks: As of :meth:`begin`.
        """
        yield Phase("fit", None)

    @property
    def prompts(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value among the training networks of each score that it is prompted by; empty without prompts."""
        return {name: (low, high) for name, (low, high) in getattr(self, "zoo_info", {}).get("prompts", {}).items()}

    @classmethod
    def recipe(cls, facts: Facts) -> dict[str, Any]:
        """Values for what a config leaves ``auto``, by dotted names without ``init_args``; none unless a backend has a recipe.

        Args:
            facts: The zoo's.
        """
        return {}

    def token_mask(self) -> Tensor:
        """The codec's mask (L, D) on this device, copied there once: a copy makes the host wait for the device."""
        assert self.codec is not None
        mask = self.codec.mask
        if self._mask is None or self._mask[0] is not mask or self._mask[1].device != self.device:
            self._mask = (mask, mask.to(self.device))
        return self._mask[1]

    def stored_bytes(self) -> int:
        """Bytes that sampling needs: parameters, buffers, the codec's statistics; no optimizer state, no constant tensors."""
        assert self.codec is not None
        tensors = [*self.state_dict().values(), self.codec.shift, self.codec.scale]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def sample(
        self, n: int | SampleRequest, condition: Tensor | Sequence[float] | None = None, **options: Any
    ) -> GeneratedNetworks:
        """New networks: n state dicts that load with ``strict=True`` into the plain network, and where they come from.

        Args:
            n: Number of networks, or a request for them.
            condition: (n, C), or (C,) for all networks. None: networks of any task.
            **options: Other fields of :class:`SampleRequest`.

        Raises:
            ParamgenError: As :class:`SampleRequest` and :meth:`draw`; a condition of another shape.
        """
        request = n if isinstance(n, SampleRequest) else SampleRequest(n, one_for_each(condition, n), **options)
        begun = time.perf_counter()
        drawn = self.draw(request)
        networks = self.decode(drawn.tokens)
        info = self.describe(request, drawn, time.perf_counter() - begun)
        return GeneratedNetworks(networks, info, drawn.identity, drawn.run)

    def describe(self, request: SampleRequest, drawn: Drawn, seconds: float) -> SampleInfo:
        """Where drawn networks come from, as far as the generator knows it.

        Args:
            request: What was asked for.
            drawn: What it gave.
            seconds: Time to draw and decode them.
        """
        return SampleInfo(
            generator=type(self).__name__,
            zoo=self.zoo_info["name"],
            zoo_sha256=self.zoo_info.get("sha256"),
            prompt=None if request.prompt is None else dict(request.prompt),
            scheduler=drawn.scheduler,
            num_inference_steps=drawn.num_inference_steps,
            temperature=request.temperature,
            guidance_scale=drawn.guidance_scale,
            fit_seconds=self.fit_seconds,
            sample_seconds=seconds,
            generator_params=sum(p.numel() for p in self.parameters()),
            generator_bytes=self.stored_bytes(),
            uses_task_data=self.uses_task_data,
            fit_command=self.fit_command,
            fit_config=self.fit_config,
            history=self.history,
        )

    @torch.no_grad()
    def draw(self, request: SampleRequest) -> Drawn:
        """The wanted networks as tokens on the CPU, and how they were drawn.

        Raises:
            ParamgenError: The generator does not support the request.
        """
        self._check(request)
        request = self._completed(request)
        training = self.training
        self.eval()
        try:
            drawn = some_rows(self.sample_tokens, request)
        finally:
            self.train(training)
        return drawn._replace(
            tokens=drawn.tokens.float().cpu(),
            scheduler=request.scheduler,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
        )

    def _completed(self, request: SampleRequest) -> SampleRequest:
        """The request, with this generator's defaults for unset fields."""
        if self.has_solver:
            steps = request.num_inference_steps or self.num_inference_steps
            request = replace(request, scheduler=request.scheduler or self.scheduler, num_inference_steps=steps)
        if request.prompt is not None:
            row = prompt_row(request.prompt, [*self.prompts], type(self).__name__).expand(request.n, -1)  # (n, C)
            given = [] if request.condition is None else [request.condition.to(row)]
            request = replace(request, condition=torch.cat([*given, row], 1))
        if request.start is not None:
            request = replace(request, start=request.start.to(self.device))
        if request.condition is None:
            return request
        scale = self.guidance_scale if request.guidance_scale is None else request.guidance_scale
        return replace(
            request,
            condition=request.condition.to(self.device),
            guidance_scale=scale if self.has_guidance else None,
        )

    def decode(self, tokens: Tensor) -> list[StateDict]:
        """Complete state dicts of networks given as tokens (n, L, D)."""
        assert self.codec is not None
        return [{**self.base, **generated} for generated in self.codec.decode_many(tokens)]

    def _check(self, request: SampleRequest) -> None:
        """Refuse an unsupported request."""
        kind, conditional = type(self).__name__, request.condition is not None or request.prompt is not None
        if request.prompt is not None:
            prompt_row(request.prompt, [*self.prompts], kind)
        if request.start is not None and not self.has_start:
            raise ParamgenError(
                f"start weights were given, but this {kind} takes none: it was fitted without data.start"
            )
        if request.condition is not None and not self.cond_dim:
            raise ParamgenError(f"a condition was given, but this {kind} was fitted on a zoo without conditions")
        if request.guidance_scale is not None and not (conditional and self.has_guidance):
            raise ParamgenError("guidance_scale needs a condition and a generator that takes one")
        if request.state is not None and not self.has_states:
            raise ParamgenError(f"state {request.state!r} was requested, but this {kind} has no states to sample from")
        if request.keep_trajectory and not self.has_solver:
            raise ParamgenError(f"this {kind} has no trajectory to keep: it does not denoise step by step")
        if (request.scheduler or request.num_inference_steps) and not self.has_solver:
            given = request.scheduler or f"num_inference_steps {request.num_inference_steps}"
            raise ParamgenError(f"{given} was given, but this {kind} has no solver to choose")

    def setup(self, stage: str) -> None:
        """Take the codec from the data module; refuse data that the loaded checkpoint was not made for."""
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return
        if self.codec is not None and self.codec.spec != data.codec.spec:
            raise ParamgenError(
                f"the checkpoint generates other tensors than zoo {data.zoo.name!r} holds; it was fitted on another zoo"
            )
        self._check_tokens(data.codec, "data give")
        if data.start_weights and not self.has_start:
            raise ParamgenError(
                f"data.start gives start weights, but {type(self).__name__} takes none; remove data.start"
            )
        if self.codec is not None and [*self.prompts] != [*data.prompt]:
            saved, given = (", ".join(names) or "none" for names in (self.prompts, data.prompt))
            raise ParamgenError(f"the checkpoint was fitted with the prompts {saved}, data.prompt is {given}")
        self.codec = data.codec
        self.base = data.zoo.base()
        zoo = data.zoo
        self.zoo_info = {"name": zoo.name, "path": str(zoo.path), "sha256": zoo.sha256, "task": zoo.task_config}
        self.zoo_info |= places(data.zoo, data.train_indices)
        self.zoo_info |= {"prompts": prompt_ranges(data.zoo, data.train_indices, data.prompt)}

    def begin(self, networks: NetworkTokens) -> None:
        """Called once when a fit starts or resumes; for backends that need all training networks. Does nothing by default.

        Args:
            networks: The K training networks in order: ``networks.batches(size)`` gives their tokens (B, L, D), ``networks.conditions``
                their conditions (K, C), or None where the zoo has none.
        """

    def on_fit_start(self) -> None:
        """Start the clock, and give every process its own noise: Lightning gives all of them the same seed."""
        self.begin(data_of(self.trainer).training_networks())
        self._started = time.perf_counter()
        if self.trainer.world_size > 1:
            torch.manual_seed(mix(torch.initial_seed(), self.global_rank))

    def on_fit_end(self) -> None:
        """Stop the clock."""
        self.fit_seconds = self._seconds()
        del self._started

    def _seconds(self) -> float:
        """Seconds of all fits so far, with the running one."""
        return self.fit_seconds + (time.perf_counter() - self._started if hasattr(self, "_started") else 0)

    def training_step(self, batch: ParamBatch, batch_idx: int) -> STEP_OUTPUT:
        """One step; logs every term under ``train/``."""
        terms = self.loss(batch)
        if self.behaviour is not None:
            extra = self.behaviour.loss(self, batch)
            terms = {**terms, "loss": terms["loss"] + self.behaviour.weight * extra, "behaviour_loss": extra}
        # Lightning reads what a progress bar may show at every step, which makes the host wait; see SparingProgressBar
        shown = self.device.type == "cpu"
        self.log_dict({f"train/{k}": v.detach() for k, v in terms.items()}, prog_bar=shown, batch_size=len(batch.x))
        return terms["loss"]

    def validation_step(self, batch: ParamBatch, batch_idx: int) -> None:
        """Losses on the zoo's val runs, under ``val/``. The noise is the same at every step of a fit, so these losses can be compared."""
        self._log_unseen("val", batch, batch_idx)

    def test_step(self, batch: ParamBatch, batch_idx: int) -> None:
        """Losses on the zoo's held-out runs, under ``test/``."""
        self._log_unseen("test", batch, batch_idx)

    def predict_step(self, batch: ParamBatch, batch_idx: int) -> list[StateDict]:
        """As many new networks as the batch has."""
        condition = batch.condition if self.cond_dim else None
        return self.sample(len(batch.x), condition, start=batch.start)

    def _log_unseen(self, name: str, batch: ParamBatch, batch_idx: int) -> None:
        with forked_random(self.device):
            torch.manual_seed(mix(batch_idx, self.global_rank))
            terms = self.loss(batch)
        self.log_dict({f"{name}/{k}": v for k, v in terms.items()}, batch_size=len(batch.x), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what sampling needs in addition to the weights: the class, the codec, the tensors that are not generated."""
        if bad := not_finite(self, checkpoint["state_dict"]):
            step = checkpoint["global_step"]
            raise DivergedError(
                f"the fit diverged: at step {step} {bad!r} is NaN or infinite; checkpoints saved before are kept"
            )
        assert self.codec is not None
        if "hyper_parameters" in checkpoint:  # settings as plain values, which torch.load(weights_only=True) takes
            checkpoint["hyper_parameters"] = plain_arguments(checkpoint["hyper_parameters"])
        checkpoint["paramgen"] = {
            "version": __version__,
            "class_path": self._class_path(),
            "codec": self.codec.state_dict(),
            "base": self.base,
            "zoo": self.zoo_info,
            "uses_task_data": self.uses_task_data,
            "fit_command": self.fit_command,
            "fit_config": self.fit_config,
            "fit_seconds": self._seconds(),
        }

    def _class_path(self) -> str:
        return f"{class_of(self).__module__}.{class_of(self).__qualname__}"

    def _check_tokens(self, codec: ParamCodec, of: str) -> None:
        if self.shape is not None and codec.shape != self.shape:
            raise ParamgenError(f"the generator was made for tokens {self.shape}, the {of} {codec.shape}")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what :meth:`on_save_checkpoint` stored."""
        if bad := not_finite(self, checkpoint["state_dict"]):
            raise ParamgenError(
                f"the checkpoint holds NaN or infinite values ({bad!r}): its fit diverged; use an earlier one"
            )
        saved = checkpoint.get("paramgen")
        if saved is None:
            raise ParamgenError("this is not a paramgen checkpoint: it has no codec")
        class_path = self._class_path()
        if saved["class_path"] != class_path:
            raise ParamgenError(f"the checkpoint was made by {saved['class_path']}, the config asks for {class_path}")
        codec = ParamCodec.from_state_dict(saved["codec"])
        if self.codec is not None:
            check_same_data(codec, self.codec)
        self._check_tokens(codec, "checkpoint's codec gives")
        self.codec = codec
        self.base, self.zoo_info = saved["base"], saved["zoo"]
        self.fit_seconds, self.uses_task_data = saved["fit_seconds"], saved["uses_task_data"]
        self.fit_command = self.fit_command or saved.get("fit_command")  # a resumed fit has its own
        self.fit_config = self.fit_config or saved.get("fit_config")
        self.history = checkpoint.get("callbacks", {}).get("SampleQuality", {}).get("history")
