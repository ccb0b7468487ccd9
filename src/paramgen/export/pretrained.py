"""transformers and diffusers: folders that ``save_pretrained`` writes and ``from_pretrained`` loads."""

from importlib import import_module
from pathlib import Path

from torch import nn

from paramgen.export.formats import Writer
from paramgen.export.source import ExportSource, NamedState


def prepare_transformers(source: ExportSource) -> Writer:
    """A folder a network.

    Raises:
        ImportError: transformers is not installed.
        ParamgenError: The networks are not transformers'.
    """
    from transformers import PreTrainedModel

    return _writer(source, PreTrainedModel, "transformers")


def prepare_diffusers(source: ExportSource) -> Writer:
    """A folder a network.

    Raises:
        ParamgenError: The networks are not diffusers'.
    """
    from diffusers import ModelMixin

    return _writer(source, ModelMixin, "diffusers")


def _writer(source: ExportSource, base: type[nn.Module], library: str) -> Writer:
    source.refuse_adapters(library)
    part = source.part(base, library)

    def write(network: NamedState, path: Path) -> Path:
        source.loaded(network.state, network.name)
        part.module.save_pretrained(path)  # type: ignore[operator]  # a method of both classes
        return path

    cls = type(part.module)
    module = library if hasattr(import_module(library), cls.__name__) else cls.__module__
    return Writer(write, f"from {module} import {cls.__name__}\nnetwork = {cls.__name__}.from_pretrained('{{path}}')")
