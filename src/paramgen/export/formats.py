"""The table of formats, and what writing one takes.

A format NAME is a function ``prepare_NAME(source)`` in its module, which checks that the networks belong to its library before
anything is written, and returns a :class:`Writer`.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from paramgen.errors import ParamgenError, did_you_mean
from paramgen.export.source import ExportSource, NamedState


class Writer(NamedTuple):
    """Writes networks in one format.

    Args:
        write: Called with a network and a path without a suffix; writes a file or a folder there and returns it.
        how: Python that loads one, with ``{path}`` where its path goes.
    """

    write: Callable[[NamedState, Path], Path]
    how: str


class Format(NamedTuple):
    """A form that networks can be written in.

    Args:
        what: Short description.
        module: Of :mod:`paramgen.export`; imported when the format is used.
        extra: What of paramgen to install with pip for it.
    """

    what: str
    module: str
    extra: str = ""


FORMATS = {
    "safetensors": Format("one .safetensors state dict a network", "files"),
    "pth": Format("one .pth state dict a network, for torch.load", "files"),
    "timm": Format("one timm folder a network: config.json and model.safetensors", "timm"),
    "torchvision": Format("one .pth state dict a network of torchvision.models", "torchvision"),
    "transformers": Format("one folder a network, as save_pretrained writes it", "pretrained", "lora"),
    "diffusers": Format("one folder a network, as save_pretrained writes it", "pretrained"),
    "peft": Format("one adapter folder a network, and the network that they belong to", "peft", "lora"),
    "onnx": Format("one .onnx file a network, with a free batch size", "onnx", "onnx"),
}
"""Formats by name."""


def writer_of(name: str, source: ExportSource) -> Writer:
    """What writes networks in a format.

    Args:
        name: One of :data:`FORMATS`.
        source: The networks.

    Raises:
        ParamgenError: No such format, its library is not installed, or the networks do not belong to it.
    """
    if name not in FORMATS:
        raise ParamgenError(f"Unknown format {name!r}. {did_you_mean(name, FORMATS)}")
    format = FORMATS[name]
    function = getattr(import_module(f"paramgen.export.{format.module}"), f"prepare_{name}")
    try:
        writer: Writer = function(source)
    except ImportError as error:
        install = f"'paramgen[{format.extra}]'" if format.extra else str(error.name)
        raise ParamgenError(
            f"--format {name} needs {error.name}, which is not installed: pip install {install}"
        ) from error
    return writer
