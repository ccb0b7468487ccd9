"""Backends: one file a method. Importing this package imports them all, for its side effect: a subclass is registered by being imported.

Other packages add theirs through the entry-point group ``paramgen.backends``.
"""

import importlib
import pkgutil
from importlib.metadata import entry_points

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
for _entry in entry_points(group="paramgen.backends"):
    _entry.load()
