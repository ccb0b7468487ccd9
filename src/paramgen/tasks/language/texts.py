"""Texts by name: the source of Python's modules, or files of one's own; and what turns them into tokens.

M: sequences of a split. T: tokens of a sequence. V: tokens of the vocabulary.
"""

import sysconfig
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paramgen.errors import ParamgenError, did_you_mean, one_line
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.language.models import transformers_module
from paramgen.tasks.published import require_language_model

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))  # V = 96; any other is read as "?"
UNKNOWN = CHARACTERS.index("?")


class Tokenizer(NamedTuple):
    """What turns a text into tokens.

    Args:
        size: V.
        encode: The tokens of a text.
    """

    size: int
    encode: Callable[[str], list[int]]


def tokenizer_of(name: str | None) -> Tokenizer:
    """Characters for None; else the tokenizer in a folder, or of a name at Hugging Face.

    Raises:
        ParamgenError: It cannot be read.
    """
    if name is None:
        return Tokenizer(len(CHARACTERS), encode_characters)
    loaded = load_tokenizer(name)
    return Tokenizer(len(loaded), lambda text: list(loaded(text, add_special_tokens=False)["input_ids"]))


def load_tokenizer(name: str) -> Any:
    """The tokenizer in a folder, or of a name at Hugging Face.

    Raises:
        ParamgenError: It cannot be read.
    """
    transformers = transformers_module()
    require_language_model(name)
    try:
        return transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ParamgenError(f"cannot read the tokenizer {name!r}: {one_line(error)}") from error


def encode_characters(text: str) -> list[int]:
    """Places of the characters in :data:`CHARACTERS`."""
    return [_places().get(character, UNKNOWN) for character in text]


@lru_cache
def _places() -> dict[str, int]:
    return {character: i for i, character in enumerate(CHARACTERS)}


def read_text(name: str, root: str | None) -> str:
    """The text of a name: ``NAME.txt`` in a folder, or the source of one of Python's own modules.

    Args:
        name: Name of a file, or of a module such as ``turtle`` or ``unittest.mock``.
        root: The folder. None: Python's modules, which are read and not imported.

    Raises:
        ParamgenError: No such text.
    """
    folder = Path(sysconfig.get_paths()["stdlib"] if root is None else root)
    paths = [folder / f"{name}.txt"]
    if root is None:
        stem = folder.joinpath(*name.split("."))
        paths = [stem.with_suffix(".py"), stem / "__init__.py"]
    for path in paths:
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
    suffix = ".py" if root is None else ".txt"
    available = sorted(path.stem for path in folder.glob(f"*{suffix}"))
    raise ParamgenError(f"no text {name!r} in {folder}. {did_you_mean(name, available, limit=12)}")


def sequences(tokens: Tensor, context: int) -> ArraySplit:
    """Tokens in pieces of T, each with the token that follows: (M, T) twice; what is left over is dropped."""
    count = (len(tokens) - 1) // context
    used = tokens[: count * context + 1]
    return ArraySplit(used[:-1].view(count, context), used[1:].view(count, context))


def character_shares(text: str) -> Tensor:
    """Logarithms of the shares of :data:`CHARACTERS` in a text: (96,)."""
    counts = torch.tensor(encode_characters(text)).bincount(minlength=len(CHARACTERS))
    return ((counts + 1) / (counts.sum() + len(CHARACTERS))).log()
