"""One network on disk: a file, or a folder of one of the libraries' layouts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from paramgen.collect.readers.adapters import is_adapter_folder, read_adapter_folder
from paramgen.collect.readers.distributed import is_distributed, read_distributed
from paramgen.collect.readers.models import is_model_folder, read_model_folder
from paramgen.core.weight_files import has_weight_suffix, is_aside, read_state_dict


class Stored(NamedTuple):
    """A way to store one network.

    Args:
        name: For messages.
        recognises: Whether a path is one; reads names of files alone.
        read: Its state dict; the second argument is ``--key``.
        wrapped: Whether wrappers may have put a prefix before its names.
    """

    name: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, str | None], Mapping[str, Any]]
    wrapped: bool = True


def is_weight_file(path: Path) -> bool:
    """Whether a file's name says that it holds a network."""
    return has_weight_suffix(path) and not path.name.startswith(".") and not is_aside(path)


WEIGHT_FILE = Stored("file", lambda path: path.is_file() and is_weight_file(path), read_state_dict)
ADAPTER_FOLDER = Stored("peft adapter", is_adapter_folder, read_adapter_folder, wrapped=False)
FOLDERS = (
    ADAPTER_FOLDER,
    Stored("distributed checkpoint", is_distributed, read_distributed),
    Stored("model folder", is_model_folder, read_model_folder, wrapped=False),
)


def stored_as(path: Path) -> Stored | None:
    """How the network at a path is stored; None: there is none."""
    kinds = FOLDERS if path.is_dir() else (WEIGHT_FILE,)
    return next((kind for kind in kinds if kind.recognises(path)), None)
