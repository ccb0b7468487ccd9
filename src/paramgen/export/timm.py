"""timm: a folder with ``config.json`` and ``model.safetensors``, timm's own layout, which its Hub repositories have too."""

from pathlib import Path
from typing import Any

from timm.models import save_for_hf

from paramgen.export.formats import Writer
from paramgen.export.source import ExportSource, NamedState


def prepare_timm(source: ExportSource) -> Writer:
    """A folder a network.

    Raises:
        ParamgenError: The networks are not timm's.
    """
    source.refuse_adapters("timm")
    configuration = getattr(source.network, "pretrained_cfg", None)  # timm's factory sets it
    if not (isinstance(configuration, dict) and configuration.get("architecture")):
        raise source.wrong_library("timm")
    arguments, images = _arguments(source), _images(source)

    def write(network: NamedState, path: Path) -> Path:
        module = source.loaded(network.state, network.name)
        save_for_hf(module, str(path), {"pretrained_cfg": images}, arguments, safe_serialization=True)
        return path

    return Writer(write, "import timm\nnetwork = timm.create_model('local-dir:{path}', pretrained=True)")


def _arguments(source: ExportSource) -> dict[str, Any]:
    given = source.network_args
    shape = given.pop("in_shape", getattr(source.family, "in_shape", None))  # ScorerTask has it among the arguments
    return {**({} if shape is None else {"in_chans": shape[0]}), **given}


def _images(source: ExportSource) -> dict[str, Any]:
    """How the images were prepared, in timm's words, and that the weights are not the published ones."""
    data, shape = getattr(source.family, "source", None), getattr(source.family, "in_shape", None)
    if data is None or shape is None:
        return {}
    return {"tag": "", "input_size": list(shape), "mean": list(data.mean), "std": list(data.std), "crop_pct": 1.0}
