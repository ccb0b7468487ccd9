"""The command ``paramgen``: exit codes and one-line errors."""

import os
import signal
import sys

from paramgen.cli.dispatch import first_process, run
from paramgen.core import signals
from paramgen.core.signals import StopRequested
from paramgen.errors import find_mistake, refused_by_system


def main(args: list[str] | None = None) -> int:
    """Run one command.

    Args:
        args: The command line after ``paramgen``; the process's own when None.

    Returns:
        0; after a user error, printed as one line on stderr, its exit code (2; 3 for a diverged fit);
        128 and the signal's number for a command that a signal stopped.
    """
    try:
        with signals.raised():
            following = run(sys.argv[1:] if args is None else args)
            if following and first_process():
                print(f"next: {following}", file=sys.stderr)
    except KeyboardInterrupt:
        return _stopped(StopRequested(signal.SIGINT))
    except StopRequested as request:
        return _stopped(request)
    except BrokenPipeError:  # the reader has closed the pipe, as in `paramgen … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the remaining output is flushed at exit
        return 141
    except Exception as error:
        mistake = find_mistake(error) or refused_by_system(error)
        if mistake is None:
            if (stopped := signals.request()) is not None:
                return _stopped(stopped)
            raise
        print(f"paramgen: {' '.join(str(mistake).split())}", file=sys.stderr)
        return mistake.exit_code
    return 0


def _stopped(request: StopRequested) -> int:
    """Report that a command was stopped. Only the first process prints; the others exit with 0, or their launcher would kill it."""
    if not first_process():
        return 0
    print(f"paramgen: stopped by {request}; all files written so far are complete", file=sys.stderr)
    return request.exit_code


def entry_point() -> None:
    """The console script."""
    sys.exit(main())
