"""All tracks of a plan, several at a time, each kept when it is finished; then the tables."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch

from fusmae_lite.archives import open_archive
from fusmae_lite.config import project_root
from fusmae_lite.errors import InputError, RunError
from fusmae_lite.files import write_text
from fusmae_lite.locks import only_job
from fusmae_lite.optimise import choose_device
from fusmae_lite.progress import duration, line, track
from fusmae_lite.results.leakage import measure_leakage
from fusmae_lite.results.page import Report, write_report
from fusmae_lite.results.plan import Plan
from fusmae_lite.results.track import Track, run_track
from fusmae_lite.synthetic import Truth, synthesise


def run_results(
    plan: Plan, folder: Path | None = None, data_dir: str = "", sen12ms: str = "", workers: int = 0, page: bool = False
) -> Report:
    """Make every table and figure; continues where an earlier call was stopped.

    Args:
        plan: see :func:`~fusmae_lite.results.load_plan`.
        folder: where everything goes; ``runs/results-<preset>`` by default.
        data_dir: a BigEarthNet archive; empty: a synthetic one with known truth is made in `folder`.
        sen12ms: a SEN12MS archive for Table 2; empty: a synthetic one is made in `folder`.
        workers: tracks at a time; 0: one a core, with one thread each; one on a GPU.
        page: also fill the tables of RESULTS.md and its pictures in ``docs/results`` of this checkout.

    Raises:
        InputError: no archive, or a folder that holds results of another plan or that another job holds.
        RunError: a track failed; those that finished are kept.
    """
    folder = folder or project_root() / "runs" / f"results-{plan.preset}"
    with only_job(folder):
        _same_plan(plan, folder, data_dir, sen12ms)
        tracks = list(_tracks(plan, folder, data_dir, sen12ms))
        _run_all(plan, tracks, folder, workers)
        if plan.real:
            measure_leakage(folder / "leakage.json", plan.leakage_redraws)
        return write_report(plan, folder, page)


def _same_plan(plan: Plan, folder: Path, data_dir: str, sen12ms: str) -> None:
    """Refuse to mix tracks of different plans; a plan may grow by seeds, systems and ablations."""
    fixed = {k: v for k, v in vars(plan).items() if k not in ("seeds", "systems", "ablations", "redraws")}
    text = f"{fixed}\n{data_dir}\n{sen12ms}\n"
    path = folder / "plan.txt"
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise InputError(f"{folder} holds results of another plan or archive", "give another folder, or remove it")
    write_text(path, text)


def _tracks(plan: Plan, folder: Path, data_dir: str, sen12ms: str) -> Iterator[Track]:
    """Every track, the slow ones first, so that no worker is left with one at the end."""
    if not data_dir and not plan.pairs:
        raise InputError(f"the {plan.preset} plan makes no archive", "name one: -p data_dir=/data/bigearthnet.lmdb")
    data = "given" if data_dir else "truth"
    root = data_dir or str(_synthetic(folder / "data" / "truth", plan.pairs, "lmdb", Truth()))
    transfer = sen12ms
    if not transfer and plan.triplets:
        transfer = str(_synthetic(folder / "data" / "sen12ms", plan.triplets, "sen12ms"))
    for path in filter(None, (root, transfer)):
        open_archive(path)  # complains now rather than in every worker
    for key in reversed((*plan.systems, *plan.ablations)):
        for seed in plan.seeds:
            yield Track(data, root, key, seed, plan.synthetic_epochs, transfer)
    for key in reversed(plan.systems) if plan.real else ():
        for seed in plan.seeds:
            yield Track("real", "", key, seed, plan.real_epochs)


def _synthetic(path: Path, count: int, format: str, truth: Truth | None = None) -> Path:
    return path if path.is_dir() else synthesise(path, count, format=format, seed=1, truth=truth)


def _run_all(plan: Plan, tracks: list[Track], folder: Path, workers: int) -> None:
    """Every track that is not finished; the first failure ends the run after the others in progress."""
    left = [t for t in tracks if not (folder / "tracks" / f"{t.name}.json").is_file()]
    if not left:
        return
    gpu = choose_device(plan.config("xae")).type != "cpu"
    workers = min(workers or (1 if gpu else os.cpu_count() or 1), len(left))
    began = time.perf_counter()
    line(f"{len(tracks)} tracks, {len(left)} to run, {workers} at a time")
    finished = track(_finished(plan, left, folder / "tracks", workers), "tracks", len(left))
    for done, name in enumerate(finished, 1):
        line(f"{done:3d}/{len(left)}  {name}  {duration(time.perf_counter() - began)} so far")


def _finished(plan: Plan, tracks: list[Track], folder: Path, workers: int) -> Iterator[str]:
    """Names of tracks as they end. Processes start afresh, so that one can be on a GPU, and use a thread each."""
    with ProcessPoolExecutor(workers, get_context("spawn"), _start, (workers,)) as pool:
        futures = {pool.submit(run_track, plan, one, folder): one for one in tracks}
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except BrokenProcessPool:
                    what = "a process was killed, perhaps for want of memory"
                    raise RunError(f"{what}; finished tracks are kept, the same command continues") from None
                except (InputError, RunError) as error:
                    raise RunError(f"{futures[future].name}: {error}") from None
                yield futures[future].name
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start(workers: int) -> None:
    if workers > 1:
        torch.set_num_threads(1)
