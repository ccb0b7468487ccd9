"""The command ``paramgen``: exit codes, and mistakes in one line."""

import sys

from paramgen.dispatch import run
from paramgen.errors import ParamgenError


def main(args: list[str] | None = None) -> int:
    """Run one command.

    Args:
        args: The command line after ``paramgen``; the process's own when None.

    Returns:
        0, or 2 for a mistake that the user can mend, said in one line on stderr.
    """
    try:
        run(sys.argv[1:] if args is None else args)
    except ParamgenError as error:
        print(f"paramgen: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("paramgen: interrupted; what was written is whole", file=sys.stderr)
        return 130
    return 0


def entry_point() -> None:
    """The console script."""
    sys.exit(main())
