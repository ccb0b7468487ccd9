"""Folders of peft: one adapter with its configuration."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paramgen.core.io import read_json
from paramgen.core.stored import LazyTensors
from paramgen.core.weight_files import read_state_dict
from paramgen.errors import ParamgenError, shown
from paramgen.tasks.lora import ADAPTER, CONFIG, PREFIX, WEIGHTS

_BIN = "adapter_model.bin"
_LORA = re.compile(r"(\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))(?=\.|$)")
SAME = (  # what changes the meaning of an adapter's weights
    "peft_type",
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "fan_in_fan_out",
    "base_model_name_or_path",
)


def is_adapter_folder(folder: Path) -> bool:
    """Whether a folder holds an adapter of peft."""
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in (WEIGHTS, _BIN))


def read_adapter_folder(folder: Path, key: str | None = None) -> Mapping[str, Any]:
    """An adapter under the names that it has in the adapted network: ``layer.lora_A.default.weight``.

    Raises:
        ParamgenError: A damaged file.
    """
    path = folder / WEIGHTS
    saved = read_state_dict(path if path.is_file() else folder / _BIN, key)
    names = {_LORA.sub(rf"\1.{ADAPTER}", name.removeprefix(PREFIX)): name for name in saved}
    return LazyTensors(names, lambda name: saved[names[name]])


def adapter_config(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter.

    Raises:
        ParamgenError: A damaged file.
    """
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise ParamgenError(f"{folder / CONFIG} holds {shown(config)}, expected an object")
    return config


def check_alike(config: Mapping[str, Any], first: Mapping[str, Any], where: str) -> None:
    """Raise ParamgenError where the weights of two adapters do not mean the same."""
    for name in SAME:
        if config.get(name) != first.get(name):
            raise ParamgenError(
                f"{where}: {name} is {shown(config.get(name))}, {shown(first.get(name))} in the first adapter; "
                "all adapters of a zoo must have the same"
            )
