"""Work done by a thread ahead of its use."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(calls: Iterable[Callable[[], T]], depth: int) -> Generator[T, None, None]:
    """The results of some calls, in order; a thread makes the next `depth` of them while one is used. With depth 0 there is no thread.

    Raises:
        Exception: What a call raises, when its result is due.
    """
    if depth == 0:
        yield from (call() for call in calls)
        return
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, "paramgen-ahead") as thread:
        try:
            for call in calls:
                waiting.append(thread.submit(call))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for unused in waiting:
                unused.cancel()
