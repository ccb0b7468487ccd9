"""Folders of transformers whose tensors have other names in memory than in the file, as version 5 writes ViT's.

transformers alone knows both names, so it loads such a folder itself. The class is looked up in transformers by the name that the
configuration has. Code in the folder is not run, and a configuration that could make transformers fetch or import more is left alone.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

CONFIG = "config.json"
MORE = ("auto_map", "quantization_config", "attn_implementation", "_attn_implementation", "experts_implementation")


class Known(NamedTuple):
    """A model of transformers.

    Args:
        model: Its class.
        names: Of its tensors in memory.
    """

    model: Any
    names: frozenset[str]


def named_as_in_memory(weights: Path, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors of a model's folder under their names in memory; unchanged if these are those of the file, or unknown.

    Args:
        weights: The file that they come from, or its index.
        tensors: Under the names that they have there.
    """
    folder = weights.parent
    if find_spec("transformers") is None or not (folder / CONFIG).is_file():
        return tensors
    known = _known((folder / CONFIG).read_text(encoding="utf-8", errors="replace"))
    if known is None or tensors.keys() <= known.names:
        return tensors
    with _without_bars():
        model, problems = known.model.from_pretrained(
            folder,
            output_loading_info=True,
            dtype="auto",
            use_safetensors=".safetensors" in weights.name,
            local_files_only=True,
        )
    renamed: dict[str, Any] = model.state_dict()
    return tensors if any(problems.values()) else renamed


@cache
def _known(config: str) -> Known | None:
    """The model that a configuration describes; None if it is not one of transformers, or may need more than its class."""
    import transformers  # takes seconds

    try:
        settings = json.loads(config)
        (name,) = settings["architectures"]
        model = getattr(transformers, name)
        if not issubclass(model, transformers.PreTrainedModel) or _has(settings, MORE):
            return None
        with torch.device("meta"):
            return Known(model, frozenset(model(model.config_class.from_dict(settings)).state_dict()))
    except Exception:  # of another library or version: the names in the file are all that is known
        return None


def _has(settings: Any, keys: tuple[str, ...]) -> bool:
    """Whether one of the keys is anywhere in settings."""
    if isinstance(settings, Mapping):
        return not settings.keys().isdisjoint(keys) or any(_has(value, keys) for value in settings.values())
    return isinstance(settings, list) and any(_has(value, keys) for value in settings)


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of transformers, which would be one for each network."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
