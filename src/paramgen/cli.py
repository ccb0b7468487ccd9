"""The command ``paramgen``: exit codes, and mistakes in one line."""

import os
import sys

from paramgen.dispatch import run
from paramgen.errors import find_mistake


def main(args: list[str] | None = None) -> int:
    """Run one command.

    Args:
        args: The command line after ``paramgen``; the process's own when None.

    Returns:
        0, 2 for a mistake that the user can mend, said in one line on stderr, or as the shell has it for what was interrupted.
    """
    try:
        run(sys.argv[1:] if args is None else args)
    except KeyboardInterrupt:
        print("paramgen: interrupted; what was written is whole", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `paramgen … | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed at exit
        return 141
    except Exception as error:
        mistake = find_mistake(error)
        if mistake is None:
            raise
        print(f"paramgen: {' '.join(str(mistake).split())}", file=sys.stderr)
        return 2
    return 0


def entry_point() -> None:
    """The console script."""
    sys.exit(main())
