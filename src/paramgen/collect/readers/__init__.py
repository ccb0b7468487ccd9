"""How others store trained networks: one file per layout, and the list of them."""

from dataclasses import replace
from pathlib import Path

from paramgen.collect.readers.folder import Folder
from paramgen.collect.readers.found import Layout, Reading
from paramgen.collect.readers.hub import fetch_source
from paramgen.collect.readers.matrix import FlatMatrix
from paramgen.collect.readers.model_j import ModelJ
from paramgen.collect.readers.parquet import LoraWise
from paramgen.collect.readers.ray_tune import RayTune
from paramgen.collect.readers.splits import Splits
from paramgen.collect.readers.text2weights import TextToWeights
from paramgen.core.hub import is_hub
from paramgen.errors import ParamgenError, did_you_mean

LAYOUTS: tuple[type[Layout], ...] = (RayTune, FlatMatrix, LoraWise, TextToWeights, Splits, ModelJ, Folder)
"""Tried in this order; the last one takes any folder."""


def open_source(source: str, layout: str | None, reading: Reading) -> Layout:
    """The networks in a folder or file.

    Args:
        source: The folder or file, or ``hf://owner/name@revision/pattern``.
        layout: Name of its layout. Default: the first that recognises it.
        reading: How to read it.

    Raises:
        ParamgenError: No such folder, unknown layout, or one that does not fit the folder.
    """
    commit = None
    if is_hub(source):
        path, pattern, commit = fetch_source(source, reading.pattern)
        reading = replace(reading, pattern=pattern)
    elif not (path := Path(source)).exists():
        raise ParamgenError(f"no folder {source!r}")
    names = {kind.name: kind for kind in LAYOUTS}
    if layout is not None and layout not in names:
        raise ParamgenError(f"Unknown layout {layout!r}. {did_you_mean(layout, names)}")
    fitting = [kind for kind in LAYOUTS if layout in (None, kind.name) and kind.recognises(path)]
    if not fitting:
        if path.is_file() and layout is None:
            raise ParamgenError(f"{source!r} is one file; give the folder that holds it and the others")
        what = (
            f"is not of the layout {layout}: {names[layout].what}" if layout else "holds no networks that can be read"
        )
        raise ParamgenError(f"{source!r} {what}")
    opened = fitting[0](path, reading)
    opened.origin = {} if commit is None else {"commit": commit}
    return opened
