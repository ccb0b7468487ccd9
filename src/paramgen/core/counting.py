"""Counts in words."""

from collections.abc import Iterable


def counted(number: int, what: str, plural: str = "") -> str:
    """A number and what it counts: ``1 network``, ``1,210 parameters``.

    Args:
        number: How many.
        what: In the singular.
        plural: Default: the singular with an s.
    """
    return f"{number:,} {what if number == 1 else plural or f'{what}s'}"


def size_text(size: float) -> str:
    """A number of bytes in the largest unit of which it has one: ``44.7 MB``."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} B"


def some(names: Iterable[str], most: int = 8) -> str:
    """Names for a message: ``a, b, c and 4 more``; ``nothing`` without any.

    Args:
        names: In order.
        most: How many are named.
    """
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "") or "nothing"
