"""One writer per folder, and the temporary files of killed processes, which the next process that locks the folder deletes.

Both use ``flock``, which the system releases when a process ends for any reason: a lock is never stale, and a temporary file
that is not locked belongs to a process that has ended. Process ids would not do, because the system reuses them.
"""

import json
import logging
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO, Any

from paramgen.errors import ParamgenError, cannot_write

try:
    import fcntl
except ImportError:  # on Windows: no locks, and nothing is cleaned up
    fcntl = None  # type: ignore[assignment]

LOCK = ".paramgen.lock"
TEMPORARY = ".paramgen-tmp"  # the end of a temporary file's name

_log = logging.getLogger(__name__)
_held: dict[Path, int] = {}  # descriptors of the lock files that this process holds, by folder


@contextmanager
def locked(folder: str | Path, wait: bool = False) -> Iterator[None]:
    """Hold a folder for writing: no other process that asks for it gets it before the block ends.

    The folder is made if it does not exist, and removed again if nothing was written to it. Temporary files that killed processes
    left in it are deleted. A process that holds a folder already gets it again.

    Args:
        folder: The folder to write to.
        wait: Wait until another process that holds it ends the block, where that takes a moment.

    Raises:
        ParamgenError: Another process holds it and `wait` is false (its number, command and start are named), it is a file, or it
            cannot be written.
    """
    path = Path(folder).resolve()
    if path in _held:
        yield
        return
    if path.exists() and not path.is_dir():
        raise ParamgenError(f"{folder} is a file; choose a folder")
    created = [p for p in (path, *path.parents) if not p.exists()]
    try:
        _held[path] = _take(path, str(folder), wait)
        remove_dead(path)
        yield
    finally:
        if (descriptor := _held.pop(path, None)) is not None:  # None in a forked process: the lock is its parent's
            with suppress(OSError):
                (path / LOCK).unlink()
            os.close(descriptor)
        with suppress(OSError):  # stop at the first folder that is not empty
            for empty in created:
                empty.rmdir()


def _take(folder: Path, name: str, wait: bool) -> int:
    """Open and lock a folder's lock file; its descriptor."""
    for attempt in count():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # do not follow links: somebody else's folder must not make us overwrite another file
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except OSError as error:
            # its last holder has just removed the folder that it had made; /proc raises this error too, each time
            if isinstance(error, FileNotFoundError) and not folder.is_dir() and attempt < 100:
                continue
            raise cannot_write(name, error) from error
        if not _flock(descriptor, wait):
            holder = _holder(descriptor)
            os.close(descriptor)
            raise ParamgenError(f"{name} is being written by {holder}: wait until it ends, or choose another folder")
        if _is(descriptor, folder / LOCK):
            break
        os.close(descriptor)  # its last holder has just removed it
    try:
        _sign(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise cannot_write(name, error) from error
    return descriptor


def _sign(descriptor: int) -> None:
    """Record the holder in a lock file."""
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join(["paramgen", *sys.argv[1:]]),
        "since": f"{datetime.now():%Y-%m-%d %H:%M}",
    }
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(holder).encode())


def _holder(descriptor: int) -> str:
    """Who holds a lock file, from its content."""
    try:
        saved: dict[str, Any] = json.loads(os.read(descriptor, 1 << 16))
        where = "" if saved["host"] == socket.gethostname() else f" on {saved['host']}"
        command = str(saved["command"])
        short = command if len(command) <= 80 else f"{command[:79]}…"
        return f"process {saved['pid']}{where} ({short}) since {saved['since']}"
    except (OSError, ValueError, TypeError, KeyError):  # it has not been written yet
        return "another process"


def temporary_name(target: Path) -> Path:
    """A new name in the folder of `target`, for what will be renamed to it; :func:`remove_dead` finds it."""
    return target.parent / f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}"


@contextmanager
def temporary_file(target: Path) -> Iterator[IO[bytes]]:
    """A file in the folder of `target`, to be written and renamed to it; if it was not renamed, it is deleted at the end.

    While it is open it is locked, so that :func:`remove_dead` of another process leaves it alone.

    Args:
        target: The file that is to be written.
    """
    # choose the name before creating the file, so that a request to stop never leaves a file behind
    path, file = temporary_name(target), None
    try:
        while True:
            file = open(path, "x+b", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115  closed below
            _flock(file.fileno(), wait=True)
            if _is(file.fileno(), path):
                break
            file.close()  # it was taken for a dead one before it was locked
        yield file
    finally:
        try:
            if file is not None:
                file.close()  # fails again if a write has failed
        finally:
            path.unlink(missing_ok=True)


def remove_dead(folder: Path) -> None:
    """Delete temporary files in a folder whose process has ended; files that are being written stay.

    Args:
        folder: Its own files alone, not those of folders below.
    """
    for path in folder.glob(f".*{TEMPORARY}") if fcntl else ():
        with suppress(OSError):  # renamed in the meantime
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _flock(descriptor, unsupported=False):
                    path.unlink()
            finally:
                os.close(descriptor)


def _flock(descriptor: int, wait: bool = False, unsupported: bool = True) -> bool:
    """Lock an open file; False if another has locked it, `unsupported` where the file system has no locks."""
    if fcntl is None:
        return unsupported
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:  # some network file systems
        if not _warned:
            _warned.append(True)
            _log.warning("this file system has no locks (%s): do not run two commands on one folder", error.strerror)
        return unsupported
    return True


_warned: list[bool] = []  # one warning per process


def _is(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _forget() -> None:
    """Close the locks in a forked process: they are its parent's, and end with it."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
