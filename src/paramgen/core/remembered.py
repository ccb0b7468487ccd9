"""The zoos that this user made on this machine with classes that the user typed: these classes run again without ``trust``.

As with direnv's ``allow``, a file of the user's identifies each zoo by its path and by the digest of its ``zoo.json``. A downloaded,
copied, moved or modified zoo does not match. The file also says where the classes came from, so that a module of the same name in
another working folder does not run in their place.
"""

import logging
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from paramgen.core.io import read_json, write_json
from paramgen.core.locks import locked
from paramgen.core.trust import module_file
from paramgen.errors import ParamgenError

REMEMBERED_FORMAT = 1
KEPT = 1000  # the newest zoos: the file is read and written in one piece

_log = logging.getLogger(__name__)


def remember(zoo: Path, digest: str, classes: Iterable[str]) -> None:
    """Record a zoo that a command of this user has just written. Where the record cannot be written, nothing is remembered.

    Args:
        zoo: Its folder.
        digest: The sha256 of its ``zoo.json``.
        classes: The classes that it names and that are not part of paramgen. Without any, or where one is of a module that this
            process has not imported, the zoo is not recorded: a name that was only copied from another zoo is not the user's.
    """
    tops = sorted({path.partition(".")[0] for path in classes})
    modules = {top: place for top in tops if top in sys.modules and (place := module_file(top)) is not None}
    if not tops or len(modules) < len(tops):
        return
    try:
        key, file = str(zoo.resolve()), _state_file()
        "".join([key, *modules.values()]).encode()  # JSON cannot hold a name that is not Unicode
        with locked(file.parent, wait=True):
            others = {path: entry for path, entry in _zoos(file).items() if path != key}
            zoos = {**others, key: {"sha256": digest, "modules": modules}}
            write_json(file, {"format": REMEMBERED_FORMAT, "zoos": dict([*zoos.items()][-KEPT:])}, mode=0o600)
    except (ParamgenError, OSError, RuntimeError, ValueError) as error:  # RuntimeError: no home directory
        _say(str(error))


def is_remembered(zoo: Path, digest: str) -> bool:
    """Whether :func:`remember` recorded this zoo, and its classes would still be imported from the same files.

    Args:
        zoo: Its folder.
        digest: The sha256 of its ``zoo.json``.
    """
    try:
        record = _zoos(_state_file()).get(str(zoo.resolve()))
    except (OSError, RuntimeError) as error:
        _say(str(error))
        return False
    if record is None or record["sha256"] != digest:
        return False
    return all(module_file(top) == place for top, place in record["modules"].items())


def _state_file() -> Path:
    """``$XDG_STATE_HOME/paramgen/trusted.json``; a relative ``$XDG_STATE_HOME`` counts as unset, as its specification says."""
    given = os.environ.get("XDG_STATE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".local/state") / "paramgen/trusted.json"


def _zoos(file: Path) -> dict[str, Any]:
    """What is recorded, by the zoo's path; empty if the file is missing, damaged, or writable by another user."""
    try:
        if not file.exists():
            return {}
        status = file.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            raise ParamgenError(f"{file} can be written by another user")
        zoos: dict[str, Any] = read_json(file, "trusted")["zoos"]
    except (ParamgenError, OSError) as error:
        _say(str(error))
        return {}
    return zoos


@cache
def _say(why: str) -> None:
    """Log once why zoos cannot be remembered."""
    _log.debug("no zoo is remembered as this user's own: %s", why)
