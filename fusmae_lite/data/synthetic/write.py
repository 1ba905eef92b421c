"""Synthetic archives of any size, drawn and written in chunks by one process or several."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import lmdb

from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives.base import SYNTHETIC
from fusmae_lite.data.archives.sen12ms import SIDE
from fusmae_lite.data.archives.tensors import pack
from fusmae_lite.data.processes import each, followed, processors
from fusmae_lite.data.synthetic import writers
from fusmae_lite.data.synthetic.scene import Scenes
from fusmae_lite.data.synthetic.truth import Truth

#: Bytes a pair takes on disk, with room to spare; what is asked for before the first is written.
BYTES = {"v1": 380_000, "reben": 380_000, "sen12ms": 2_800_000, "lmdb": 300_000}
FORMATS = tuple(BYTES)
CHUNK = 64
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
    workers = workers or min(processors(), 1 + pairs // WORTH_A_PROCESS)
    root = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".tmp", dir=destination.parent))
    try:
        root.chmod(0o755)
        job = _Job(root, pairs, format, _scenes(format, seed, truth))
        with closing(each(_write_chunk, job, range(0, pairs, CHUNK), workers if workers > 1 else 0)) as chunks:
            rows = list(followed(chain.from_iterable(chunks), f"synthetic {format}", pairs))
        _write_about(root, rows, {"pairs": pairs, "seed": seed, "format": format, "known_truth": truth is not None})
        if truth is not None:
            (root / "truth.json").write_text(truth.as_json(), encoding="utf-8")
        os.replace(root, destination)
    except (OSError, lmdb.Error) as error:
        raise InputError(f"{destination}: cannot be written ({error})", "give a disk with room and rights") from None
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return destination


@dataclass(frozen=True)
class _Job:
    """What every process needs to know."""

    root: Path
    pairs: int
    format: str
    scenes: Scenes


def _write_chunk(job: _Job, first: int) -> list[writers.Row]:
    """Draw and write some pairs; returns what the tables say of them."""
    indices = range(first, min(first + CHUNK, job.pairs))
    pairs = [job.scenes.pair(index) for index in indices]
    rows = [writers.describe(index, pair.labels) for index, pair in zip(indices, pairs, strict=True)]
    if job.format == "lmdb":  # open for one chunk: LMDB's own lock keeps processes apart
        size = job.pairs * 2 * BYTES["lmdb"] + 2**24
        with (
            lmdb.open(str(job.root), map_size=size, sync=False, metasync=False, readahead=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            for row, pair in zip(rows, pairs, strict=True):
                transaction.put(row.s2_name.encode(), pack(pair.bands["s2"]))
                transaction.put(row.s1_name.encode(), pack(pair.bands["s1"]))
        return rows
    write = {"v1": writers.write_v1, "reben": writers.write_reben, "sen12ms": writers.write_sen12ms}[job.format]
    for row, pair in zip(rows, pairs, strict=True):
        write(job.root, row, pair)
    return rows


def _write_about(root: Path, rows: list[writers.Row], about: dict[str, Any]) -> None:
    """The format's tables, and the mark of what is synthetic."""
    if about["format"] == "v1":
        writers.write_lists(root, rows)
    elif about["format"] != "sen12ms":
        writers.write_table(root, rows, about)
    (root / "lock.mdb").unlink(missing_ok=True)
    text = (
        "SYNTHETIC DATA. No image in this folder was taken by a satellite.\n"
        f"Made by fusmae-lite: {', '.join(f'{name} {value}' for name, value in about.items())}.\n"
        "Results on it must never stand beside results on real patches without saying so.\n"
    )
    (root / SYNTHETIC).write_text(text, encoding="utf-8")


def _scenes(format: str, seed: int, truth: Truth | None) -> Scenes:
    if format == "sen12ms":
        return Scenes(seed, lookalikes=writers.LOOKALIKES, side=SIDE, one_grid=True)
    return Scenes(seed, truth=truth)


def _check(destination: Path, pairs: int, format: str, seed: int, truth: Truth | None) -> None:
    """InputError for what cannot be written; makes the parent folder."""
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
    folder, needed = destination.parent, pairs * BYTES[format]
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} has {free / 1e9:.1f} GB free, the archive needs {needed / 1e9:.1f}",
            "give another disk or fewer pairs",
        )
