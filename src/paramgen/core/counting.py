"""Counts in words."""


def counted(number: int, what: str, plural: str = "") -> str:
    """A number and what it counts: ``1 network``, ``1,210 parameters``.

    Args:
        number: How many.
        what: In the singular.
        plural: Default: the singular with an s.
    """
    return f"{number:,} {what if number == 1 else plural or f'{what}s'}"
