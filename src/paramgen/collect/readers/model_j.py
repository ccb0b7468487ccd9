"""Model-J (ProbeX): one folder per model, whose metadata say which classes it was trained on.

``SPLIT/model_idx_0001/pytorch_lora_weights.safetensors`` (Stable Diffusion), or one folder per model with ``config.json`` and
``model.safetensors`` (``Model-J__MAE__model_idx_0929``). The settings are in the header of the safetensors file, as Python literals.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from paramgen.collect.readers.found import Found, Layout, Value
from paramgen.collect.readers.models import is_model_folder, read_model_folder
from paramgen.collect.readers.pattern import SPLIT_WORDS
from paramgen.core.io import read_header
from paramgen.core.weight_files import natural_order
from paramgen.core.zoo import Split
from paramgen.errors import ParamgenError

_MODEL = re.compile(r"(.*)model_idx_(\d+)")


class ModelJ(Layout):
    """Folders ``…model_idx_N``, each a model."""

    name = "model-j"
    what = "a folder of folders model_idx_N with a model each, directly or in folders of splits"

    @staticmethod
    def recognises(source: Path) -> bool:
        """Whether it has such a folder."""
        return source.is_dir() and next(_models(source), None) is not None

    def find(self) -> Iterator[Found]:
        """Each model, in natural order, with the split of its folder."""
        for folder in sorted(
            _models(self.source), key=lambda path: natural_order(path.relative_to(self.source).as_posix())
        ):
            name = folder.relative_to(self.source).as_posix()
            yield Found(name, folder, run=name, step=0, split=self._split(folder), condition=_condition(folder))

    def read(self, found: Found) -> Mapping[str, Any]:
        """One model's or adapter's tensors."""
        return read_model_folder(found.path, self.reading.key)

    def wrapped(self, found: Found) -> bool:
        """Libraries' own folders have no wrappers."""
        return False

    def _split(self, folder: Path) -> Split | None:
        """``val_holdout`` and ``test_holdout`` are classes that no other model has seen: held out."""
        for part in folder.relative_to(self.source).parts[:-1]:
            if "holdout" in part:
                return "heldout"
            if part in SPLIT_WORDS:
                return SPLIT_WORDS[part]
        return None


def _models(source: Path) -> Iterator[Path]:
    folders = [path for path in source.iterdir() if path.is_dir()]
    for folder in [
        *folders,
        *(below for path in folders if not _MODEL.fullmatch(path.name) for below in path.iterdir()),
    ]:
        if _MODEL.fullmatch(folder.name) and folder.is_dir() and is_model_folder(folder):
            yield folder


def _condition(folder: Path) -> dict[str, Value]:
    """The settings in the header of the weights: numbers, words, and lists as sets of words."""
    condition: dict[str, Value] = {}
    for path in sorted(folder.glob("*.safetensors"))[:1]:
        read_header(path)  # checks that it fits the file
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        for name, text in metadata.items():
            value = _literal(text, f"{path}: {name}")
            if isinstance(value, list | tuple | set):
                condition[name] = frozenset(str(item) for item in value)
            elif name != "format" and isinstance(value, bool | int | float | str) and "seed" not in name:
                condition[name] = (
                    float(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
                )
    return condition


def _literal(text: str, where: str) -> Any:
    """A value that was written by ``str``; other words stay words."""
    if len(text) > 1_000_000:
        raise ParamgenError(f"{where} has {len(text):,} characters, expected a list of classes")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
