"""Work shared among processes, in order, with bounded memory; what goes wrong in one is one line, as in this one."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import lmdb
import torch
from torch.multiprocessing import get_sharing_strategy
from torch.utils.data import DataLoader, Dataset, default_collate

from fusmae_lite.core.errors import InputError, RunError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Items in flight for each process: a slow disk must not fill the memory.
_AHEAD = 16
_TOLD = (InputError, OSError, lmdb.Error)
_KILLED = "DataLoader worker (pid"  # how torch's RuntimeError begins


def processors() -> int:
    """Processors this process may use, where the system says so (Linux), else all there are; at least one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load(dataset: Dataset, *, workers: int = 0, **options: Any) -> Iterator[Any]:
    """The batches of a ``DataLoader`` with these options.

    `workers` are the processes that read (0: this one), never more than there are processors.

    Raises:
        InputError: a patch that cannot be read, with the message that reading it here would give.
        RunError: a reading process was killed.
    """
    _allow_files(min(workers, processors()))
    yield from _loaded(_Calls(dataset.__getitem__, range(len(dataset))), workers, collate_fn=_collate, **options)


def each(
    function: Callable[[Any, Item], Result], shared: Any, items: Sequence[Item], workers: int | None = None
) -> Iterator[Result]:
    """``function(shared, item)`` of every item, in order; `shared` goes to each process once.

    ``workers=0`` calls it in this process, None in one per processor.
    """
    workers = processors() if workers is None else workers
    if workers < 0:
        raise InputError(f"{workers} workers", "choose 0 (no further process) or more")
    options = {"prefetch_factor": _AHEAD} if workers else {}
    own = torch.Generator()  # or each loader would draw a seed from the global one
    calls = _Calls(partial(function, shared), items)
    yield from _loaded(calls, workers, batch_size=None, collate_fn=_as_it_is, generator=own, **options)


@contextmanager
def told_when_killed() -> Iterator[None]:
    """RunError in place of torch's RuntimeError for a killed worker: it may hit whatever runs while one dies."""
    try:
        yield
    except RuntimeError as error:
        if _KILLED not in str(error):
            raise
        raise RunError(
            "a process that reads data was killed, perhaps for want of memory (or of room in /dev/shm); use fewer "
            "workers; what was saved is intact"
        ) from None


class _Calls(Dataset):
    """Gives an error back instead of raising it: torch rebuilds exceptions of workers from their text alone."""

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.function, self.items = function, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        try:
            return self.function(self.items[i])
        except _TOLD as error:
            return error


def _loaded(calls: _Calls, workers: int, **options: Any) -> Iterator[Any]:
    workers = min(workers, processors())  # more would only wait for each other, and torch would warn
    with told_when_killed():
        try:
            for batch in DataLoader(calls, num_workers=workers, worker_init_fn=end_with_parent, **options):
                if isinstance(batch, _TOLD):
                    raise batch
                yield batch
        except (ConnectionError, EOFError) as error:  # a worker's pipe can break before torch hears of its death
            time.sleep(1)  # torch's own error comes within
            raise RuntimeError(_KILLED) from error


def _allow_files(workers: int) -> None:
    """Each band of a batch under way is an open file on Linux; without room for them torch waits for ever."""
    if not workers or get_sharing_strategy() != "file_descriptor":
        return
    import resource

    (soft, hard), needed = resource.getrlimit(resource.RLIMIT_NOFILE), 64 + 48 * workers
    if soft < needed and hard < needed:
        what = f"{workers} processes that read need {needed} open files, this system allows {hard}"
        raise InputError(what, f"allow more (ulimit -n {needed}), or set workers=0")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def end_with_parent(_: int = 0) -> None:
    """Watch the process that started this one, and end when it has ended, however it did."""
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _as_it_is(item: Item) -> Item:
    return item


def _collate(items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, _TOLD)), None) or default_collate(items)
