"""Does size matter? Memory and cost per pair on synthetic archives of 1,000 to 100,000 pairs.

    python benchmarks/scale.py --sizes 1000 10000 100000 --scratch /big/disk --record benchmarks/scale.json

For each size an LMDB of synthetic pairs is written (275 KB a pair, so 28 GB for the largest), opened, and the smoke
model trained on pairs from all over it, with a loader process per core, in a process of its own. Memory is its
anonymous memory (Linux); pages of the file that the system keeps in its cache are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fusmae_lite.core.files import write_text
from fusmae_lite.data.synthetic import synthesise

# In a fresh process, so that what one size left in memory does not count for the next. Two epochs over the same number
# of pairs, drawn from the whole archive; the second is reported.
PROBE = """
import json, sys, time
import numpy as np
from fusmae_lite import load_preset, open_archive
folder, run_dir, pairs, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def own():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 2**10
before, started = own(), time.perf_counter()
archive = open_archive(folder)
opened, after = time.perf_counter() - started, own()
rows = np.random.default_rng(1).integers(len(archive), size=3000)
for row in rows[:1000]:
    archive.read(int(row))
started, cpu = time.perf_counter(), time.process_time()
for row in rows[1000:]:
    archive.read(int(row))
read = {"read_ms_processor": round((time.process_time() - cpu) / 2, 3),
        "read_ms": round((time.perf_counter() - started) / 2, 3), "reading_mib": round(own() - after, 1)}
from fusmae_lite import pretrain
chosen = np.random.default_rng(0).permutation(len(archive))[:pairs]
archive.splits = np.full(len(archive), "", "<U5")
archive.splits[chosen] = "train"
fields = dict(run_dir=run_dir, epochs=2, batch_size=32, workers=workers, cache=False, device="cpu")
last = pretrain(load_preset("smoke", **fields), archive, quiet=True).history[-1]
report = {"pairs": len(archive), "open_seconds": round(opened, 2), "open_mib": round(after - before, 1)}
report |= read | {"training_mib": round(own()), "pairs_per_second": round(last["pairs_per_second"], 1)}
print(json.dumps(report | {"waiting_for_data": round(last["waiting_for_data"], 3)}))
"""


def measure(size: int, scratch: Path, pairs: int) -> dict[str, float | None]:
    """Write (unless it lies there from before), open, read, train; what was written is removed again."""
    folder = scratch / f"synthetic-{size}"
    there, started = folder.is_dir(), time.perf_counter()
    if not there:
        synthesise(folder, size, format="lmdb", seed=0)
    written = time.perf_counter() - started
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as run_dir:
            arguments = [str(folder), run_dir, str(pairs), str(os.cpu_count() or 1)]
            command = [sys.executable, "-c", PROBE, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
        size_on_disk = sum(file.stat().st_size for file in folder.iterdir())
    finally:
        if not there:
            shutil.rmtree(folder)
    return {
        **json.loads(done.stdout.splitlines()[-1]),
        "written_per_second": None if there else round(size / written, 1),
        "kb_per_pair_on_disk": round(size_on_disk / size / 1e3, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--pairs", type=int, default=960, help="of an epoch")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    rows = []
    for size in given.sizes:
        rows.append(measure(size, given.scratch, given.pairs))
        print(json.dumps(rows[-1]), flush=True)
    if given.record:
        report = {"cores": os.cpu_count(), "pairs_an_epoch": given.pairs, "batch": 32, "rows": rows}
        write_text(given.record, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
