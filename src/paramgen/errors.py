"""Mistakes that a user can mend, said in one line."""

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path
from reprlib import Repr
from typing import Any


class ParamgenError(Exception):
    """A mistake of input: what was given, what was expected, what exists. The command line prints it and exits with `exit_code`."""

    exit_code = 2


class DivergedError(ParamgenError):
    """A fit diverged: its loss or its weights are NaN, infinite or far from where they began."""

    exit_code = 3


def find_mistake(error: BaseException) -> ParamgenError | None:
    """The user's mistake in a chain of exceptions, or None: libraries wrap what a class of ours raises when they build it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ParamgenError):
        cause = cause.__cause__ or cause.__context__
    return cause


def cannot_write(path: str | Path, error: OSError) -> ParamgenError:
    """What to raise where a file or folder could not be written: a full disk, a read-only folder.

    Args:
        path: What was to be written.
        error: What the system said.
    """
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    what = "the disk is full" if full else error.strerror or str(error)
    return ParamgenError(f"cannot write {path}: {what}; files written before are complete")


def refused_by_system(error: BaseException) -> ParamgenError | None:
    """What to say of a file or folder that the system refused: a full disk, a read-only folder, a file where a folder is meant.

    Args:
        error: Any exception; None for all others than these.
    """
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return None
    return cannot_write(error.filename or "a file", error)


_REFUSALS = {
    getattr(errno, name)
    for name in (
        "ENOSPC",
        "EDQUOT",
        "EFBIG",
        "EROFS",
        "EACCES",
        "EPERM",
        "EIO",
        "ENOTDIR",
        "EISDIR",
        "EEXIST",
        "ENAMETOOLONG",
    )
    if hasattr(errno, name)  # Windows has no EDQUOT
}


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, and not all of what is long."""
    return " ".join(_SHORT.repr(value).split())


def one_line(error: BaseException) -> str:
    """What an exception of a library says, on one line of at most 200 characters; its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxother = 2, 3, 3, 3, 60


def positive(of: str = "", **numbers: float | None) -> None:
    """Refuse counts below 1 and rates that are not above 0; None is left to whoever takes it.

    Args:
        of: What the names belong to, for example ``model.``.
        **numbers: By name; ints are counts.

    Raises:
        ParamgenError: One of them is not positive.
    """
    for name, number in numbers.items():
        if number is not None and not number > 0:
            expected = "1 or more" if isinstance(number, int) else "more than 0"
            raise ParamgenError(f"{of}{name} is {number}, expected {expected}")


def not_negative(**numbers: float | None) -> None:
    """Refuse numbers below 0; None is left to whoever takes it.

    Args:
        **numbers: By name.

    Raises:
        ParamgenError: One of them is below 0.
    """
    for name, number in numbers.items():
        if number is not None and number < 0:
            raise ParamgenError(f"{name} is {number}, expected 0 or more")


def near(name: str, known: Iterable[str], most: int = 12) -> str:
    """What exists, nearest names first: ``"there are: a, b"``.

    Args:
        name: What was asked for.
        known: The names that exist.
        most: How many names to list at most.
    """
    names = sorted(set(known))
    if not names:
        return "there are none"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    listed = close + [n for n in names if n not in close]
    more = f", and {len(listed) - most} more" if len(listed) > most else ""
    nearest = f"nearest: {', '.join(close)}; " if close else ""
    return f"{nearest}there are: {', '.join(listed[:most])}{more}"
