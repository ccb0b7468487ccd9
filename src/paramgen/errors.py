"""User errors, reported as one line."""

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import Repr
from typing import Any, get_args


class ParamgenError(Exception):
    """A user error: what was given, what was expected, what is available. The command line prints it and exits with `exit_code`."""

    exit_code = 2


class UnscoredError(ParamgenError):
    """A scoring function raised an error on some networks. It is raised last: all other networks are scored, and all files are written."""


class DivergedError(ParamgenError):
    """A fit diverged: its loss or weights are NaN or infinite, or the loss rose far above its first values."""

    exit_code = 3


def find_mistake(error: BaseException) -> ParamgenError | None:
    """The user error in a chain of exceptions, or None. Libraries wrap the errors of the classes that they construct."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ParamgenError):
        cause = cause.__cause__ or cause.__context__
    return cause


def cannot_write(path: str | Path, error: OSError) -> ParamgenError:
    """The error to raise when a file or folder cannot be written, for example on a full disk.

    Args:
        path: The file or folder.
        error: The operating system's error.
    """
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    what = "the disk is full" if full else error.strerror or str(error)
    return ParamgenError(f"cannot write {path}: {what}; files written before are complete")


def refused_by_system(error: BaseException) -> ParamgenError | None:
    """The error to report for a file or folder that the operating system refused, for example in a read-only folder.

    Args:
        error: Any exception. Returns None unless it is such a refusal.
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
    """A value for a message: on one line, shortened if long."""
    return " ".join(_SHORT.repr(value).split())


def one_line(error: BaseException) -> str:
    """An exception's message on one line of at most 200 characters, or its type if it has no message."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if it has no message: libraries add advice and traces below."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxother = 2, 3, 3, 3, 60


def require_positive(of: str = "", **numbers: float | None) -> None:
    """Raise unless every integer is at least 1 and every float is above 0. None is accepted.

    Args:
        of: Prefix of the names in messages, for example ``model.``.
        **numbers: Values by name.

    Raises:
        ParamgenError: A number is not positive.
    """
    for name, number in numbers.items():
        if number is not None and not number > 0:
            expected = "1 or more" if isinstance(number, int) else "more than 0"
            raise ParamgenError(f"{of}{name} is {number}, expected {expected}")


def require_non_negative(**numbers: float | None) -> None:
    """Raise unless every number is 0 or more. None is accepted.

    Args:
        **numbers: Values by name.

    Raises:
        ParamgenError: A number is below 0.
    """
    for name, number in numbers.items():
        if number is not None and not number >= 0:
            raise ParamgenError(f"{name} is {number}, expected 0 or more")


def require_seed(seed: int, of: str = "seed", bits: int = 63) -> None:
    """Raise unless a number can seed the generators of numpy and torch.

    Args:
        seed: The number.
        of: Its name in messages.
        bits: That it may have.

    Raises:
        ParamgenError: It is negative or has more bits.
    """
    if not 0 <= seed < 2**bits:
        raise ParamgenError(f"{of} is {seed}, expected an integer from 0 to 2^{bits} - 1")


def require_fraction(**numbers: float) -> None:
    """Raise unless every number is between 0 and 1.

    Args:
        **numbers: Values by name.

    Raises:
        ParamgenError: A number is not above 0 and below 1.
    """
    for name, number in numbers.items():
        if not 0 < number < 1:
            raise ParamgenError(f"{name} is {number}, expected a number between 0 and 1")


def require_choice(choices: Any, of: str = "", **values: object) -> None:
    """Raise unless every value is one of some texts: a function that is called from Python gets any.

    Args:
        choices: A ``Literal`` of the texts; it may have None among them.
        of: Prefix of the names in messages, for example ``model.``.
        **values: Values by name.

    Raises:
        ParamgenError: A value is another one.
    """
    *others, last = get_args(choices)
    for name, value in values.items():
        if value not in (*others, last):
            raise ParamgenError(f"{of}{name} is {value!r}, expected {', '.join(map(str, others))} or {last}")


@contextmanager
def arguments_for(what: str, raised: tuple[type[Exception], ...] = (TypeError,)) -> Iterator[None]:
    """Report the errors of a constructor as mistakes in its arguments.

    Args:
        what: What is constructed, for the message.
        raised: Errors that mean such a mistake.

    Raises:
        ParamgenError: An argument is unknown, missing or refused.
    """
    try:
        yield
    except raised as error:
        raise ParamgenError(f"{what} does not take these arguments: {error}") from error


def did_you_mean(name: str, available: Iterable[str], limit: int = 12) -> str:
    """The end of a message about an unknown name: ``"Did you mean 'a'? Available: a, b, c."``.

    Args:
        name: The unknown name.
        available: The valid names. Those that begin with the unknown one, and close matches, are listed first.
        limit: Maximum number of names to list.
    """
    names = sorted(set(available))
    if not names:
        return "None available."
    begun = [n for n in names if name and n.startswith(name)]  # h100 of h100-80gb
    close = list(dict.fromkeys([*begun, *difflib.get_close_matches(name, names, n=3, cutoff=0.5)]))[:3]
    listed = close + [n for n in names if n not in close]
    suggestion = f"Did you mean {close[0]!r}? " if close else ""
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return f"{suggestion}Available: {', '.join(listed[:limit])}{more}."
