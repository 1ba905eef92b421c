"""Several processes from one: starting them as torchrun does, and what each then does (``python -m`` this file)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.files import write_text
from fusmae_lite.core.locks import only_job
from fusmae_lite.core.progress import line
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.processes import processors
from fusmae_lite.systems.weights import load_model
from fusmae_lite.train.distributed import LAUNCHER_SIZES, LAUNCHER_VARIABLES, check_batch, place_among_processes
from fusmae_lite.train.pretrain import PretrainResult, pretrain

#: More processes than processors only wait for each other; so many are allowed anyway, to try things out.
FEW = 8


def launch(config: RunConfig, archive: Archive | None = None) -> PretrainResult:
    """Pretrain in ``config.processes`` processes: one per GPU, or on a machine without one, on the CPU.

    One process is :func:`pretrain` here and now. More are started afresh, as ``torchrun`` does, so that it works in a
    notebook whatever ran there before, and their result is read back. In a process that torchrun started, it joins.

    Args:
        config: as for :func:`pretrain`.
        archive: for a single process, the patches if they are open already.

    Raises:
        InputError: more processes than GPUs, or whatever the run refuses; an environment that tells half of what
            several processes need.
        RunError: a process failed; the message is the first one's.
    """
    _, size = place_among_processes()
    if size > 1 and config.processes not in (1, size):
        raise InputError(f"processes={config.processes} in one of {size} processes", "leave processes out")
    if size > 1 or config.processes == 1:
        return pretrain(config, archive)
    _check_processes(config)
    with only_job(config.folder() / "pretrain"):  # says so here rather than through a launcher; then it is theirs
        pass
    with tempfile.TemporaryDirectory() as folder:
        # --standalone takes a free port: others may run, too
        torchrun = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={config.processes}",
        ]
        worker = ["-m", "fusmae_lite.train.launch", config.model_dump_json(), f"{folder}/result.json"]
        run_command([*torchrun, *worker], config.processes)
        result = json.loads(Path(folder, "result.json").read_text(encoding="utf-8"))
    checkpoint = Path(result.pop("checkpoint"))
    return PretrainResult(load_model(checkpoint / "model.safetensors", config), checkpoint=checkpoint, **result)


def _check_processes(config: RunConfig) -> None:
    gpus = torch.cuda.device_count() if config.device != "cpu" else 0
    if gpus and config.processes > gpus:
        raise InputError(f"{config.processes} processes for {gpus} GPUs", "ask for one per GPU")
    if not gpus and config.processes > max(FEW, processors()):
        what = f"{config.processes} processes for {processors()} processors and no GPU"
        raise InputError(what, f"ask for {max(FEW, processors())} at most")
    check_batch(config, config.processes)


def run_command(command: list[str], processes: int) -> None:
    """Run it and pass on what it prints, line by line; each process gets its share of the cores as threads."""
    threads = str(max(1, processors() // processes))
    unset = {*LAUNCHER_VARIABLES, *LAUNCHER_SIZES}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    environment = {"OMP_NUM_THREADS": threads, **inherited, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as complaints:  # a file, because a pipe that nobody empties would stop them
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment)
        try:
            assert process.stdout is not None
            for text in process.stdout:
                line(text.rstrip())
            if process.wait():
                complaints.seek(0)
                raise RunError(_first_complaint(complaints.read()))
        finally:
            process.terminate()  # torchrun takes its processes along; does nothing to one that has ended
            process.wait()


def _first_complaint(text: str) -> str:
    """The line that says why: our own, or the first exception."""
    own = re.search(r"^error: (.+)$", text, re.MULTILINE)
    other = re.search(r"^(?:\[rank\d+\]: )?([\w.]+(?:Error|Exception): .+)$", text, re.MULTILINE)
    return own[1] if own else f"a launched process failed: {other[1] if other else 'it was killed'}"


def main(text: str, path: str) -> int:
    """Run what the JSON text configures; the main process writes the result. After one line on stderr, status 1."""
    try:
        result = pretrain(RunConfig.model_validate_json(text))
    except (InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if place_among_processes()[0] == 0:
        facts = {"history": result.history, "heldout": result.heldout, "resumed_from": result.resumed_from}
        write_text(Path(path), json.dumps({**facts, "checkpoint": str(result.checkpoint)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
