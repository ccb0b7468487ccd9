"""Backends: one file a method. Importing this package imports them all, for its side effect: a subclass is registered by being imported.

Other packages add theirs through entry points; see :mod:`paramgen.core.plugins`.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
