"""Synthetic archives of any size: pairs are drawn and written in chunks, by one process or several."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import lmdb

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import interactive, line, track
from fusmae_lite.data.archives.base import SYNTHETIC
from fusmae_lite.data.decode import processors
from fusmae_lite.data.synthetic import writers
from fusmae_lite.data.synthetic.scene import Scenes
from fusmae_lite.data.synthetic.truth import Truth

FORMATS = ("v1", "reben", "sen12ms", "lmdb")
CHUNK = 64
#: Bytes a pair takes on disk, with room to spare; what is asked for before the first is written.
BYTES = {"v1": 380_000, "reben": 380_000, "sen12ms": 2_800_000, "lmdb": 300_000}
#: Below this number another process costs more time to start than it saves.
WORTH_A_PROCESS = 500


def synthesise(
    destination: Path | str,
    pairs: int,
    *,
    format: str = "lmdb",
    seed: int = 0,
    truth: Truth | None = None,
    workers: int = 0,
) -> Path:
    """Write a synthetic archive that `open_archive` reads as one of its format; returns its folder.

    Pair number i of a seed is the same in every format of BigEarthNet, whatever `workers` is. 60 / 20 / 20 of them
    are train, val and test (SEN12MS: nine tenths train, one tenth in held-out scenes). SYNTHETIC.txt in the folder
    says what it is. The archive appears under its name when it is complete.

    Args:
        destination: folder to make; must not exist.
        pairs: how many.
        format: v1, reben, sen12ms (triplets of 256 px) or lmdb.
        seed: decides every pixel.
        truth: make known truth (see :class:`Truth`) instead of land cover; written to truth.json. Not for sen12ms.
        workers: processes; 0: one per processor, fewer for small archives.

    Raises:
        InputError: the folder exists, no such format, too little room on the disk, or the disk refuses.
    """
    destination = Path(destination).expanduser()
    _check(destination, pairs, format, seed, truth)
    destination.parent.mkdir(parents=True, exist_ok=True)
    _check_room(destination, pairs * BYTES[format])
    workers = workers or min(processors(), 1 + pairs // WORTH_A_PROCESS)
    root = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".tmp", dir=destination.parent))
    try:
        root.chmod(0o755)
        _write_all(Job(root, pairs, format, seed, truth), workers)
        os.replace(root, destination)
    except (OSError, lmdb.Error, BrokenProcessPool) as error:
        raise InputError(f"{destination}: cannot be written ({error})", "give a disk with room and rights") from None
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return destination


@dataclass
class Job:
    """What every process needs to know; draws and writes pairs. Fields as the arguments of :func:`synthesise`."""

    root: Path
    pairs: int
    format: str
    seed: int
    truth: Truth | None
    _scenes: Scenes | None = field(default=None, repr=False)

    def scenes(self) -> Scenes:
        """The source of pairs, made on first use, once per process."""
        if self._scenes is None and self.format == "sen12ms":
            self._scenes = Scenes(self.seed, lookalikes=writers.LOOKALIKES, side=writers.SIDE, one_grid=True)
        elif self._scenes is None:
            self._scenes = Scenes(self.seed, truth=self.truth)
        return self._scenes

    def write(self, first: int) -> list[writers.Row]:
        """Draw and write one chunk of pairs; returns what the tables say of them."""
        indices = range(first, min(first + CHUNK, self.pairs))
        pairs = [self.scenes().pair(index) for index in indices]
        rows = [writers.describe(index, pair.labels) for index, pair in zip(indices, pairs, strict=True)]
        if self.format == "sen12ms":
            writers.write_sen12ms(self.root, first, pairs)
        elif self.format == "lmdb":
            with self._environment() as environment:
                writers.write_lmdb(environment, rows, pairs)
        else:
            (writers.write_v1 if self.format == "v1" else writers.write_reben)(self.root, rows, pairs)
        return rows

    @contextmanager
    def _environment(self) -> Iterator[lmdb.Environment]:
        """The LMDB, open for one chunk: its own lock keeps processes apart, and nothing is left open at the end."""
        size = self.pairs * 2 * BYTES["lmdb"] + 2**24
        with lmdb.open(str(self.root), map_size=size, sync=False, metasync=False, readahead=False) as environment:
            yield environment


_job: Job | None = None


def _start(job: Job) -> None:
    global _job
    _job = job


def _write_chunk(first: int) -> list[writers.Row]:
    assert _job is not None
    return _job.write(first)


def _write_all(job: Job, workers: int) -> None:
    rows: dict[int, list[writers.Row]] = {}
    total = range(0, job.pairs, CHUNK)
    for first, chunk in track(_chunks(job, workers), f"synthetic {job.format}", len(total)):
        rows[first] = chunk
        if len(total) > 9 and not interactive() and len(rows) * 10 // len(total) != (len(rows) - 1) * 10 // len(total):
            line(f"{min(len(rows) * CHUNK, job.pairs)} of {job.pairs} synthetic pairs written")
    _write_tables(job, [row for first in total for row in rows[first]])


def _chunks(job: Job, workers: int) -> Iterator[tuple[int, list[writers.Row]]]:
    """(first index, rows) of each chunk as it is done."""
    firsts = range(0, job.pairs, CHUNK)
    if workers == 1:
        yield from ((first, job.write(first)) for first in firsts)
        return
    with ProcessPoolExecutor(workers, initializer=_start, initargs=(job,)) as pool:
        futures = {pool.submit(_write_chunk, first): first for first in firsts}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_tables(job: Job, rows: list[writers.Row]) -> None:
    about = {"pairs": job.pairs, "seed": job.seed, "format": job.format, "known_truth": job.truth is not None}
    if job.format == "v1":
        writers.write_lists(job.root, rows)
    elif job.format != "sen12ms":
        writers.write_table(job.root, rows, about)
    (job.root / "lock.mdb").unlink(missing_ok=True)
    if job.truth is not None:
        (job.root / "truth.json").write_text(job.truth.as_json(), encoding="utf-8")
    text = (
        "SYNTHETIC DATA. No image in this folder was taken by a satellite.\n"
        f"Made by fusmae-lite: {', '.join(f'{name} {value}' for name, value in about.items())}.\n"
        "Results on it must never stand beside results on real patches without saying so.\n"
    )
    (job.root / SYNTHETIC).write_text(text, encoding="utf-8")


def _check(destination: Path, pairs: int, format: str, seed: int, truth: Truth | None) -> None:
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}", f"choose one of {', '.join(FORMATS)}")
    if not 1 <= pairs <= 5_000_000:
        raise InputError(f"pairs {pairs}", "give a number from 1 to 5,000,000")
    if seed < 0:
        raise InputError(f"seed {seed} is negative", "give 0 or more")
    if truth is not None and format == "sen12ms":
        raise InputError("known truth is for several labels a patch, SEN12MS has one", "choose v1, reben or lmdb")
    if destination.exists():
        raise InputError(f"{destination} exists", "give another folder, or remove it first; nothing is overwritten")


def _check_room(destination: Path, needed: int) -> None:
    free = shutil.disk_usage(destination.parent).free
    if free < needed:
        raise InputError(
            f"{destination.parent} has {free / 1e9:.1f} GB free, the archive needs {needed / 1e9:.1f}",
            "give another disk or fewer pairs",
        )
