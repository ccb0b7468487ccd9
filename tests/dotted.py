"""Settings by dotted names, as on the command line: short to write and easy to merge."""

from typing import Any


def nest(dotted: dict[str, Any]) -> dict[str, Any]:
    """``{"autoencoder.kind": "pca", "sampling": "full"}`` as ``{"autoencoder": {"kind": "pca"}, "sampling": "full"}``."""
    nested: dict[str, Any] = {}
    for name, value in dotted.items():
        group, _, field = name.partition(".")
        if field:
            nested.setdefault(group, {})[field] = value
        else:
            nested[name] = value
    return nested
