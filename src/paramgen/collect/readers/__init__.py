"""How others store trained networks: one file per layout, and the list of them."""

from pathlib import Path

from paramgen.collect.readers.folder import Folder
from paramgen.collect.readers.found import Layout, Reading
from paramgen.errors import ParamgenError, did_you_mean

LAYOUTS: tuple[type[Layout], ...] = (Folder,)
"""Tried in this order; the last one takes any folder."""


def open_source(source: str, layout: str | None, reading: Reading) -> Layout:
    """The networks in a folder or file.

    Args:
        source: The folder or file.
        layout: Name of its layout. Default: the first that recognises it.
        reading: How to read it.

    Raises:
        ParamgenError: No such folder, unknown layout, or one that does not fit the folder.
    """
    path = Path(source)
    if not path.exists():
        raise ParamgenError(f"no folder {source!r}")
    names = {kind.name: kind for kind in LAYOUTS}
    if layout is not None and layout not in names:
        raise ParamgenError(f"Unknown layout {layout!r}. {did_you_mean(layout, names)}")
    fitting = [kind for kind in LAYOUTS if layout in (None, kind.name) and kind.recognises(path)]
    if not fitting:
        what = (
            f"is not of the layout {layout}: {names[layout].what}" if layout else "holds no networks that can be read"
        )
        raise ParamgenError(f"{source!r} {what}")
    return fitting[0](path, reading)
