"""Lighter imports for the command line: packages that a fit never uses stay unread.

Lightning imports torchmetrics, which imports every optional package that it finds, and torch's compiler imports triton also where
nothing could run it. Without them ``paramgen fit`` starts 1.5 CPU seconds earlier and is 190 MB lighter. Only the command line does so:
who imports paramgen gets what he always had.
"""

import importlib.metadata
import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any
from unittest.mock import patch

UNUSED = ("matplotlib", "scipy", "torchvision", "transformers")  # by all that Lightning takes of torchmetrics


class LeanImports:
    """A finder (``sys.meta_path``): torchmetrics without its optional packages, and no triton without an accelerator."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """The spec of torchmetrics; None, so that other finders go on, for all else.

        Raises:
            ModuleNotFoundError: triton is asked for and there is no accelerator.
        """
        if name == "torchmetrics":
            return _without(UNUSED, PathFinder.find_spec(name, path, target))
        torch = sys.modules.get("torch")
        if name == "triton" and torch is not None and not torch.accelerator.is_available():
            logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # warns that triton is missing
            raise ModuleNotFoundError("triton is not imported without an accelerator", name=name)
        return None


def install() -> None:
    """Import lightly from now on; what is imported stays."""
    if not any(isinstance(finder, LeanImports) for finder in sys.meta_path):
        sys.meta_path.insert(0, LeanImports())


def _without(packages: Sequence[str], spec: ModuleSpec | None) -> ModuleSpec | None:
    """The same module, to which those of `packages` that are not imported yet seem not to be installed while it is imported."""
    if spec is None or spec.loader is None:
        return spec
    execute, installed = spec.loader.exec_module, importlib.metadata.distribution

    def exec_module(module: ModuleType) -> None:
        hidden = [name for name in packages if name not in sys.modules]

        def distribution(name: str) -> importlib.metadata.Distribution:
            if name in hidden:
                raise importlib.metadata.PackageNotFoundError(name)
            return installed(name)

        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: cannot be imported
        try:
            with patch.object(importlib.metadata, "distribution", distribution):
                execute(module)
        finally:
            for name in hidden:
                del sys.modules[name]

    spec.loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec
