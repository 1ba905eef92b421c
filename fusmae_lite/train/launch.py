"""Pretraining in several processes that this one starts and ends."""

import json
import os
import re
import tempfile
from pathlib import Path

import torch
from torch.multiprocessing.spawn import ProcessException, spawn

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError, RunError, without_interrupts
from fusmae_lite.core.files import write_text
from fusmae_lite.core.locks import only_job
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.loader import processors
from fusmae_lite.systems.weights import load_model
from fusmae_lite.train.distributed import check_batch, join_processes, place_among_processes
from fusmae_lite.train.pretrain import PretrainResult, pretrain

#: More processes than processors only wait for each other; so many are allowed anyway, to try things out.
FEW = 8


def launch(config: RunConfig, archive: Archive | None = None) -> PretrainResult:
    """Pretrain in ``config.processes`` processes: one per GPU, or on a machine without one, on the CPU.

    One process is :func:`pretrain` here and now, on `archive` if it is open already. More are started afresh, so that
    it works in a notebook whatever ran before (a script needs ``if __name__ == "__main__"``); RunError with the
    message of the first that fails. In a process that torchrun started, it joins.
    """
    _, size = place_among_processes()
    if size > 1 and config.processes not in (1, size):
        raise InputError(f"processes={config.processes} in one of {size} processes", "leave processes out")
    if size > 1 or config.processes == 1:
        return pretrain(config, archive)
    gpus, cpus = torch.cuda.device_count() if config.device != "cpu" else 0, processors()
    if gpus and config.processes > gpus:
        raise InputError(f"{config.processes} processes for {gpus} GPUs", "ask for one per GPU")
    if not gpus and config.processes > max(FEW, cpus):
        what = f"{config.processes} processes for {cpus} processors and no GPU"
        raise InputError(what, f"ask for {max(FEW, cpus)} at most")
    check_batch(config, config.processes)
    with only_job(config.folder() / "pretrain"):  # refused before any starts; they take it themselves
        pass
    with tempfile.TemporaryDirectory() as folder:
        with without_interrupts():
            context = spawn(_pretrain, (config, folder), config.processes, join=False)
        try:
            while not context.join():
                pass
        except ProcessException as error:
            raise RunError(_reason(error)) from None
        finally:  # SIGTERM lets each save a checkpoint
            for process in context.processes:
                process.terminate()
            for process in context.processes:
                process.join()
        result = json.loads(Path(folder, "result.json").read_text(encoding="utf-8"))
    checkpoint = Path(result.pop("checkpoint"))
    return PretrainResult(load_model(checkpoint / "model.safetensors", config), checkpoint=checkpoint, **result)


def _pretrain(rank: int, config: RunConfig, folder: str) -> None:
    """What each process does; the first writes the result."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, processors() // config.processes))
    meeting = Path(folder, "meeting").as_uri()
    join_processes(config, rank=rank, world_size=config.processes, init_method=meeting)
    result = pretrain(config)
    if rank == 0:
        facts = {"history": result.history, "heldout": result.heldout, "resumed_from": result.resumed_from}
        write_text(Path(folder, "result.json"), json.dumps({**facts, "checkpoint": str(result.checkpoint)}))


def _reason(error: ProcessException) -> str:
    """The line that says why: our own message, or another exception with its name."""
    own = re.search(r"^fusmae_lite\.\w+\.errors\.\w+: (.+)$", str(error), re.MULTILINE)
    other = re.search(r"^([\w.]+(?:Error|Exception): .+)$", str(error), re.MULTILINE)
    return own[1] if own else f"a process failed: {other[1] if other else error}"
