"""Decoding an archive in many processes, in order and with bounded memory, for :mod:`fusmae_lite.data.encode`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.archives.tensors import Layout, pack
from fusmae_lite.data.identity import signature

#: What is known of a patch, and key -> safetensors bytes. A record of a patch that cannot be read has a "reason".
Decoded = tuple[dict[str, Any], dict[str, bytes]]
#: Patches handed to a process at once.
CHUNK = 8

_archive: Archive  # of a worker process
_layouts: Mapping[str, Layout]


def processors() -> int:
    """Processors this process may use, where the system says so (Linux), else all there are; at least one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decoded(
    source: Archive, layouts: Mapping[str, Layout], rows: Sequence[int], workers: int | None = None
) -> Iterator[Decoded]:
    """Every row, in order. ``workers=0`` decodes in this process, None in one per processor."""
    workers = processors() if workers is None else workers
    if workers < 0:
        raise InputError(f"{workers} workers", "choose 0 (no further process) or more")
    if workers == 0:
        yield from (_decode(source, layouts, row) for row in rows)
        return
    chunks = (rows[first : first + CHUNK] for first in range(0, len(rows), CHUNK))
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(source, layouts))
    waiting: deque[Future[list[Decoded]]] = deque()
    try:
        for chunk in chunks:  # never more in flight than a few chunks a process: a slow disk must not fill the memory
            waiting.append(pool.submit(_decode_chunk, chunk))
            if len(waiting) > 3 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise RunError(
            "a decoding process was killed, perhaps for want of memory; the same command continues, "
            f"with fewer --workers than {workers}"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def layout_of(bands: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Layout]:
    """Modality -> band -> (side, dtype) of a patch's bands."""
    return {m: {band: (array.shape[0], array.dtype.name) for band, array in of.items()} for m, of in bands.items()}


def _decode(source: Archive, layouts: Mapping[str, Layout], row: int) -> Decoded:
    name, known = source.names[row], signature(source, row)  # before it is read: what changes now is seen later
    try:
        patch = source.read(row)
        if layout_of(patch.bands) != layouts:
            raise InputError(f"{name}: other bands, sizes or types than the archive's first patch", "encode it apart")
    except InputError as error:
        return {"name": name, "reason": str(error)}, {}
    keys = source.keys(row)
    values = {modality: pack(bands) for modality, bands in patch.bands.items()}
    record = {
        "name": name,
        "labels": list(patch.labels),
        "meta": patch.meta,
        "keys": keys,
        "crs": patch.crs,
        "bounds": patch.bounds,
        "source": known,
        "crc32": {modality: zlib.crc32(value) for modality, value in values.items()},
    }
    return record, {keys[modality]: value for modality, value in values.items()}


def _decode_chunk(rows: Sequence[int]) -> list[Decoded]:
    return [_decode(_archive, _layouts, row) for row in rows]


def _start(source: Archive, layouts: Mapping[str, Layout]) -> None:
    """Prepare a worker: its archive; Ctrl-C is the parent's business; no life without the parent."""
    global _archive, _layouts
    _archive, _layouts = source, layouts
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """A parent that was killed cannot say goodbye; its workers would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
