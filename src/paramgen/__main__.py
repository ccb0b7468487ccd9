"""``python -m paramgen``: the command ``paramgen``."""

from paramgen.cli.main import entry_point

entry_point()
