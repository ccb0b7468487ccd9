"""Every backend, found by the configs that are shipped for the digits MLP, plus the variants that need tests of their own."""

import inspect
from pathlib import Path
from typing import Any

import torch
import yaml

import gaussian_backend  # noqa: F401
import paramgen.backends  # noqa: F401
from conftest import TinyNet
from dotted import nest
from paramgen.cli.lightning import LAYOUT, LINKED
from paramgen.core.codec import ParamCodec
from paramgen.core.paths import list_configs
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.data import ParameterDataModule
from paramgen.symmetry import PermutationSpec
from paramgen.symmetry.layout import UnitLayout

TWO_PHASES = {
    "autoencoder.kind": "conv",
    "autoencoder.steps": 3,
    "autoencoder.channels": [4, 4],
    "denoiser.channels": [4, 4],
    "diffusion.num_inference_steps": 5,
}

SOME_TOKENS = {
    "recurrence.d_model": [32, 32],
    "head.channels": [1, 4, 1],
    "head.checkpointing": True,
    "tokens_per_step": 9,
    "diffusion.scheduler": "DDIM",
    "diffusion.num_inference_steps": 5,
    "diffusion.prediction_type": "sample",
    "optimizer.lr": 1e-2,
}


def cases() -> dict[str, dict[str, Any]]:
    """Name -> model and codec sections of a config."""
    found: dict[str, dict[str, Any]] = {"gaussian": {"model": {"class_path": "GaussianBackend"}}}
    for name, path in list_configs().items():
        if name.endswith("_digits_mlp"):
            found[name] = _begun(yaml.safe_load(Path(path).read_text()))
    found["pdiff_two_phases"] = {"model": {"class_path": "PDiff", "init_args": nest(TWO_PHASES)}}
    codec = {"class_path": "TokenCodec", "init_args": {"token_dim": 8}}
    found["rpg_conv"] = {"model": {"class_path": "RPG", "init_args": nest(SOME_TOKENS)}, "data": {"codec": codec}}
    return found


def _begun(case: dict[str, Any]) -> dict[str, Any]:
    """A case whose first phase, if it has two, is over after 3 steps, so that a short fit sees both."""
    arguments = case["model"].get("init_args", {})
    if "steps" in (phase := arguments.get("autoencoder", {})):
        phase["steps"] = 3
    return case


def diffuses(case: dict[str, Any]) -> bool:
    """Whether the backend of a case has the settings of a diffusion."""
    return "diffusion" in inspect.signature(_class(ParameterGenerator, case["model"]["class_path"])).parameters


def build(case: dict[str, Any], zoo: str, **data_arguments: Any) -> tuple[ParameterGenerator, ParameterDataModule]:
    """Model and data of a case on another zoo."""
    codec = case.get("data", {}).get("codec")
    data = ParameterDataModule(zoo, None if codec is None else _make(ParamCodec, codec), **data_arguments)
    linked = {name: getattr(data, name) for name in LINKED}
    if LAYOUT in inspect.signature(_class(ParameterGenerator, case["model"]["class_path"])).parameters:
        without_task = data.zoo.task_config["class_path"] == "none"
        linked[LAYOUT] = (
            UnitLayout.of(PermutationSpec.of(TinyNet(), torch.zeros(2, 4))).to_dict() if without_task else data.layout
        )
    return _make(ParameterGenerator, case["model"], linked), data


def _make(base: type, section: dict[str, Any] | str, linked: dict[str, Any] | None = None) -> Any:
    section = {"class_path": section} if isinstance(section, str) else section
    kind = _class(base, section["class_path"])
    accepted = inspect.signature(kind).parameters
    given = {name: value for name, value in (linked or {}).items() if name in accepted}
    return kind(**given, **section.get("init_args", {}))


def _class(base: type, path: str) -> Any:
    return next(c for c in _descendants(base) if c.__name__ == path.rpartition(".")[2])


def _descendants(base: type) -> list[type]:
    return [c for child in base.__subclasses__() for c in (child, *_descendants(child))]
