"""Kill a pretraining run with SIGKILL at random moments, start it again each time, and compare with one never stopped.

    python benchmarks/kill_and_resume.py --kills 20 --record benchmarks/kill_and_resume.json

The smoke model on the bundled real patches, on the CPU, a checkpoint an epoch. Moments are drawn uniformly between the
start of the process and `--longest` seconds later, so some fall into reading, some into a step and some into writing a
checkpoint. Exit status 1 if one weight or moment of the optimiser differs in one bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from fusmae_lite.core.files import write_text
from fusmae_lite.systems.tensors import read_tensors
from fusmae_lite.train.checkpoints import latest_checkpoint


def command(folder: Path, epochs: int) -> list[str]:
    fields = {"epochs": epochs, "device": "cpu", "precision": "fp32", "run_dir": folder, "augment": "crops"}
    return [
        sys.executable,
        "-m",
        "fusmae_lite.course.cli",
        "pretrain",
        *(f"-p{name}={value}" for name, value in fields.items()),
    ]


def digest(folder: Path) -> str:
    """Hash of every bit of the last checkpoint's weights and moments."""
    checkpoint = latest_checkpoint(folder / "pretrain" / "checkpoints")
    assert checkpoint is not None
    value = hashlib.sha256(checkpoint.name.encode())
    for name in ("model.safetensors", "optimizer.safetensors"):
        for key, tensor in sorted(read_tensors(checkpoint / name)[0].items()):
            value.update(key.encode() + tensor.numpy().tobytes())
    return value.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--longest", type=float, default=15.0, help="seconds a process is left alive at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as scratch:
        killed, whole = Path(scratch, "killed"), Path(scratch, "whole")
        reached = []
        while len(reached) < given.kills:
            process = subprocess.Popen(command(killed, given.epochs), stdout=subprocess.DEVNULL)
            try:
                process.wait(timeout=draw.uniform(0, given.longest))
                sys.exit("the run ended before it was killed often enough; raise --epochs or lower --longest")
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            last = latest_checkpoint(killed / "pretrain" / "checkpoints")
            left = [path.name for path in killed.rglob("*.tmp")]
            reached.append({"checkpoint": last.name if last else None, "half_written": left})
            print(f"kill {len(reached)}: {reached[-1]}", flush=True)
        for folder in (killed, whole):
            subprocess.run(command(folder, given.epochs), check=True, stdout=subprocess.DEVNULL)
        same = digest(killed) == digest(whole)
    report = {"kills": reached, "epochs": given.epochs, "seed": given.seed, "bit_identical": same}
    print("bit-identical to the undisturbed run" if same else "DIFFERENT from the undisturbed run")
    if given.record:
        write_text(given.record, json.dumps(report, indent=1) + "\n")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
