"""Folders of transformers and diffusers: one network with its configuration, or a pipeline of several."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paramgen.collect.readers.renamed import named_as_in_memory
from paramgen.collect.readers.sharded import INDEX_ENDS, read_index
from paramgen.core.weight_files import read_state_dict
from paramgen.errors import ParamgenError, did_you_mean

_STEMS = ("model", "pytorch_model", "diffusion_pytorch_model", "pytorch_lora_weights")  # the libraries' names of files
_ENDS = (*INDEX_ENDS[:1], ".safetensors", *INDEX_ENDS[1:], ".bin")  # the first that exists is read
_WHOLE = ("model.safetensors", "pytorch_model.bin")  # and their indices: what transformers itself reads from a folder
_PIPELINE = "model_index.json"


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds the files of one model, or a pipeline."""
    return (folder / _PIPELINE).is_file() or bool(_variants(folder))


def read_model_folder(folder: Path, key: str | None) -> Mapping[str, Any]:
    """The state dict of a model, or of one part of a pipeline.

    Args:
        folder: As ``save_pretrained`` and the Trainer write it.
        key: A part (``unet``), a variant of the file (``diffusion_pytorch_model.non_ema``), or both, joined by ``/``. Default: the
            only one.

    Raises:
        ParamgenError: There are several and no `key`, none of that name, or files are damaged.
    """
    found = _networks(folder)
    if not found:
        raise ParamgenError(f"{folder} is a pipeline without weights")
    wanted = found if key is None else {k: path for k, path in found.items() if key in (k, k.partition("/")[0])}
    if not wanted:
        raise ParamgenError(f"{folder} holds no weights {key!r}. {did_you_mean(str(key), found)}")
    if len(wanted) > 1:
        names = sorted(wanted)
        raise ParamgenError(
            f"{folder} holds several networks: {', '.join(names)}; choose one with --key, for example --key {names[0]}"
        )
    (path,) = wanted.values()
    tensors = read_index(path) if path.name.endswith(INDEX_ENDS) else read_state_dict(path)
    return named_as_in_memory(path, tensors) if path.name.startswith(_WHOLE) else tensors


def _networks(folder: Path) -> dict[str, Path]:
    """Weights by the key that chooses them."""
    if not (folder / _PIPELINE).is_file():
        return _variants(folder)
    found: dict[str, Path] = {}
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        variants = _variants(part)
        found |= {part.name if len(variants) == 1 else f"{part.name}/{name}": path for name, path in variants.items()}
    return found


def _variants(folder: Path) -> dict[str, Path]:
    """The files of one model by their names without endings; of the same weights in two formats, safetensors."""
    names = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    found: dict[str, Path] = {}
    for end in _ENDS:
        for name, path in sorted(names.items()):
            stem = name.removesuffix(end)
            if name.endswith(end) and stem.partition(".")[0] in _STEMS and not stem.endswith(".index"):
                found.setdefault(
                    stem.replace("pytorch_model", "model", 1) if stem.startswith("pytorch_model") else stem, path
                )
    return found
