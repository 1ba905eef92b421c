"""All tracks of a plan, several at a time, each kept when it is finished; then the tables."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError, RunError, without_interrupts
from fusmae_lite.core.files import write_text
from fusmae_lite.core.locks import only_job
from fusmae_lite.core.progress import duration, line, track
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.identity import difference, identity
from fusmae_lite.data.loader import end_with_parent, processors
from fusmae_lite.data.synthetic import synthesise
from fusmae_lite.train.optimise import choose_device
from reproduce.leakage import measure_leakage
from reproduce.page import Report, write_report
from reproduce.plan import SYSTEMS, Plan
from reproduce.track import Track, run_track


def run_results(
    plan: Plan, folder: Path | None = None, data_dir: str = "", sen12ms: str = "", workers: int = 0, page: bool = False
) -> Report:
    """Make every table and figure; continues where an earlier call was stopped.

    Args:
        plan: see :func:`~reproduce.load_plan`.
        folder: where everything goes; ``runs/results-<preset>`` by default.
        data_dir: a BigEarthNet archive; empty: synthetic land-cover pairs are made in `folder` and held in memory.
        sen12ms: a SEN12MS archive for Table 2; empty: a synthetic one is made in `folder`.
        workers: tracks at a time; 0: one a core, with one thread each; one on a GPU.
        page: also fill the tables of RESULTS.md and its pictures in ``docs/results`` of this checkout.

    Raises:
        InputError: no archive, or a folder that another job holds, or that holds results of another plan or of pairs
            that have changed since.
        RunError: a track failed; those that finished are kept.
    """
    folder = folder or project_root() / "runs" / f"results-{plan.preset}"
    with only_job(folder):
        root, transfer = _archives(plan, folder, data_dir, sen12ms)
        roots = [path for path in (root, transfer) if path] + ([""] if plan.real_curve else [])
        _same_plan(plan, folder, (data_dir, sen12ms), roots)
        _run_all(plan, _tracks(plan, root, transfer), folder / "tracks", workers)
        if plan.leakage_redraws:
            measure_leakage(folder / "leakage.json", plan.leakage_redraws)
        return write_report(plan, folder, page)


def _same_plan(plan: Plan, folder: Path, given: tuple[str, str], roots: Sequence[str]) -> None:
    """Refuse to mix tracks of different plans or pairs; a plan may grow by seeds and systems."""
    fixed = {
        k: v for k, v in vars(plan).items() if k not in ("seeds", "systems", "curve_seeds", "truth_seeds", "redraws")
    }
    # complains of a bad archive now rather than in every worker
    pairs = {root: identity(open_archive(root or None)) for root in roots}
    now = {"plan": str(fixed), "archives": list(given), "pairs": pairs}
    path, cure = folder / "plan.json", "give another folder, or remove it"
    try:
        then = json.loads(path.read_text(encoding="utf-8"))
        same = all(then[key] == now[key] for key in ("plan", "archives"))
        changed = [root for root in roots if root in then["pairs"] and difference(then["pairs"][root], pairs[root])]
    except FileNotFoundError:
        same, changed = not (folder / "plan.txt").is_file(), []  # what earlier versions wrote says nothing of pairs
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged", cure) from None
    if not same:
        raise InputError(f"{folder} holds results of another plan or archive", cure)
    if changed:
        what = f"{folder} holds results on pairs of {changed[0] or 'the bundled archive'} that have changed since"
        raise InputError(what, f"{cure}, or restore the pairs")
    write_text(path, json.dumps(now, indent=1) + "\n")


def _archives(plan: Plan, folder: Path, data_dir: str, sen12ms: str) -> tuple[str, str]:
    """Folders of the archive to train on ("": synthetic pairs in memory) and of the one to transfer to ("": none)."""
    if not data_dir and not plan.side:
        raise InputError(f"the {plan.preset} plan makes no archive", "name one: -p data_dir=/data/bigearthnet.lmdb")
    triplets = folder / "data" / "sen12ms"
    if not sen12ms and plan.triplets and not triplets.is_dir():
        synthesise(triplets, plan.triplets, format="sen12ms", seed=1)
    return data_dir, sen12ms or (str(triplets) if plan.triplets else "")


def _tracks(plan: Plan, root: str, transfer: str) -> list[Track]:
    """Every track; seed by seed, so that what is finished can be compared."""
    data = "given" if root else "scenes"
    tracks = [Track(data, key, seed, root, transfer) for seed in plan.seeds for key in [*plan.systems, "floors"]]
    if not root:
        curves = [("curve", pairs) for pairs in plan.curve] + [("real-curve", pairs) for pairs in plan.real_curve]
        tracks += [Track(name, "xae", seed, pairs=pairs) for name, pairs in curves for seed in plan.curve_seeds]
        base = [key for key in plan.systems if not SYSTEMS[key].base]
        tracks += [Track("truth", key, seed) for key in [*base, "floors"] for seed in plan.truth_seeds]
    return tracks


def _run_all(plan: Plan, tracks: list[Track], folder: Path, workers: int) -> None:
    """Every track that is not finished; the first failure ends the run after the others in progress."""
    left = [t for t in tracks if not (folder / f"{t.name}.json").is_file()]
    if not left:
        return
    gpu = choose_device(plan.config("xae")).type != "cpu"
    workers = min(workers or (1 if gpu else processors()), len(left))
    began = time.perf_counter()
    line(f"{len(tracks)} tracks, {len(left)} to run, {workers} at a time")
    finished = track(_finished(plan, left, folder, workers), "tracks", len(left))
    for done, name in enumerate(finished, 1):
        line(f"{done:3d}/{len(left)}  {name}  {duration(time.perf_counter() - began)} so far")


def _finished(plan: Plan, tracks: list[Track], folder: Path, workers: int) -> Iterator[str]:
    """Names of tracks as they end. Processes start afresh, so that one can be on a GPU, and use a thread each."""
    with ProcessPoolExecutor(workers, get_context("spawn"), _start, (workers,)) as pool:
        try:
            with without_interrupts():
                futures = {pool.submit(run_track, plan, one, folder): one for one in tracks}
            for future in as_completed(futures):
                try:
                    future.result()
                except BrokenProcessPool:
                    what = "a process was killed, perhaps for want of memory"
                    raise RunError(f"{what}; finished tracks are kept, the same command continues") from None
                except (InputError, RunError) as error:
                    raise RunError(f"{futures[future].name}: {error}") from None
                yield futures[future].name
        except KeyboardInterrupt:
            for process in list(pool._processes.values()):  # a track takes minutes, and starts anew the next time
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _start(workers: int) -> None:
    end_with_parent()
    if workers > 1:
        torch.set_num_threads(1)
