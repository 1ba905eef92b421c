"""Batches of a data set, read by further processes or none; what goes wrong in one of them is one line, as in this."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.data.processes import processors


def load(dataset: Dataset, *, workers: int = 0, **options: Any) -> Iterator[dict[str, Any]]:
    """The batches of a ``DataLoader`` with these options.

    `workers` are the processes that read (0: this one), never more than there are processors.

    Raises:
        InputError: a patch that cannot be read, with the message that reading it here would give.
        RunError: a reading process was killed.
    """
    workers = min(workers, processors())  # more would only wait for each other, and torch would warn
    with told_when_killed():
        for batch in DataLoader(_Careful(dataset), num_workers=workers, collate_fn=_collate, **options):
            if isinstance(batch, InputError):
                raise batch
            yield batch


@contextmanager
def told_when_killed() -> Iterator[None]:
    """RunError in place of torch's RuntimeError for a killed worker: it may hit whatever runs while one dies."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise RunError(
            "a process that reads data was killed, perhaps for want of memory (or of room in /dev/shm); use fewer "
            "workers; what was saved is intact"
        ) from None


class _Careful(Dataset):
    """Gives an InputError back instead of raising it: torch rebuilds exceptions of workers from their text alone."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> Any:
        try:
            return self.dataset[i]
        except InputError as error:
            return error


def _collate(items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, InputError)), None) or default_collate(items)
