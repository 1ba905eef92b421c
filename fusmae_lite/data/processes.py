"""Work shared among processes: in order, with bounded memory, and with no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.progress import duration, interactive, line, track

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Items in flight for each process: a slow disk must not fill the memory.
_AHEAD = 16
_SECONDS_BETWEEN_LINES = 30

_task: tuple[Callable[[Any, Any], Any], Any]  # of a worker process


def processors() -> int:
    """Processors this process may use, where the system says so (Linux), else all there are; at least one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    function: Callable[[Any, Item], Result], shared: Any, items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """``function(shared, item)`` of every item, in order; `shared` goes to each process once.

    ``workers=0`` calls it in this process, None in one per processor.
    """
    workers = processors() if workers is None else workers
    if workers < 0:
        raise InputError(f"{workers} workers", "choose 0 (no further process) or more")
    if workers == 0:
        yield from (function(shared, item) for item in items)
        return
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(function, shared))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_call, item))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise RunError(
            "a worker process was killed, perhaps for want of memory; run the same command again, "
            f"with fewer --workers than {workers}"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def followed(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """Iterate with a bar or, where none can move, with a line now and then."""
    started = last = time.monotonic()
    for number, item in enumerate(track(items, title, total), 1):
        yield item
        if not interactive() and time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            rate = number / (last - started)
            line(f"{title}: {number} of {total}, {rate:.1f} a second, {duration((total - number) / rate)} to go")


def _call(item: Any) -> Any:
    function, shared = _task
    return function(shared, item)


def _start(*task: Any) -> None:
    """Prepare a worker: Ctrl-C is the parent's business; no life without the parent."""
    global _task
    _task = task  # type: ignore[assignment]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """A killed parent cannot say goodbye; its workers would wait for work forever."""
    multiprocessing.parent_process().join()
    os._exit(1)
