"""Requests to stop: SIGTERM, and SIGUSR1, which SLURM sends before the time of a job is up."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Windows has no SIGUSR1
REQUESTS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
_raised: list["StopRequested"] = []  # in the last block of `raised`


class StopRequested(BaseException):
    """A signal asked this process to stop. Like KeyboardInterrupt it is no error, so ``except Exception`` lets it pass.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signal.Signals(signum)
        super().__init__(self.signum.name)

    @property
    def exit_code(self) -> int:
        """What a shell reports for a process that the signal ended."""
        return 128 + self.signum


def raise_request(signum: int, frame: FrameType | None = None) -> None:
    """A signal handler that raises :class:`StopRequested`, and keeps it for :func:`request`."""
    _raised.append(StopRequested(signum))
    raise _raised[-1]


def request() -> StopRequested | None:
    """The request that was raised in the last block of :func:`raised`, if any: native code may turn it into an error of its own."""
    return _raised[-1] if _raised else None


def install(handler: Callable[[int, Any], None], signals: Iterable[int] = REQUESTS) -> None:
    """Install a signal handler; only the main thread can do so, other threads change nothing.

    A signal that is ignored stays ignored, as ``nohup`` wants it. Processes forked later, such as data loaders, end on a signal
    as usual.

    Args:
        handler: Takes the signal and the frame.
        signals: Which ones.
    """
    owner = os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            handler(signum, frame)
        else:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    if threading.current_thread() is threading.main_thread():
        for s in signals:
            if signal.getsignal(s) != signal.SIG_IGN:
                signal.signal(s, handle)


@contextmanager
def restored(signals: Iterable[int]) -> Iterator[None]:
    """Handle signals after this block as before it; threads other than the main one change nothing."""
    before = {s: signal.getsignal(s) for s in signals}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for signum, handler in before.items():
                if handler is not None:  # None: installed by native code, and Python cannot put it back
                    signal.signal(signum, handler)


@contextmanager
def raised() -> Iterator[None]:
    """Raise :class:`StopRequested` in this block where a signal asks for it."""
    _raised.clear()
    with restored(REQUESTS):
        install(raise_request)
        yield
