"""Pretraining: one loop for a laptop, a GPU, and many of them.

Every random choice of step t is drawn from a seed derived from (seed, t), so the state of a run is its weights,
AdamW's moments and t. That is all a checkpoint holds, and a resumed run repeats the undisturbed one exactly.
"""

import math
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import RunError, Terminated
from fusmae_lite.core.locks import only_job
from fusmae_lite.core.progress import line
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.data.archives import Archive, open_data
from fusmae_lite.data.identity import identity_of
from fusmae_lite.data.loader import told_when_killed
from fusmae_lite.model.blocks import draw_by_place, place
from fusmae_lite.model.masking import draw_together
from fusmae_lite.model.system import Losses
from fusmae_lite.systems import System, build_model
from fusmae_lite.systems.weights import load_model
from fusmae_lite.train.checkpoints import Progress, kept, latest_checkpoint, read_progress, restore, save_checkpoint
from fusmae_lite.train.distributed import Processes, compile_blocks, divide_model, join_processes
from fusmae_lite.train.heldout import heldout_losses
from fusmae_lite.train.log import Rows, TrainingLog
from fusmae_lite.train.optimise import autocast, learning_rate_at, uses_bf16, weight_decay_at
from fusmae_lite.train.showing import Bands, Showing

#: Steps after which several processes ask each other whether SIGTERM came: it makes a GPU wait.
ASK_EVERY = 10


@dataclass
class PretrainResult:
    """A finished (or deliberately stopped) run.

    A row of `history` is an epoch: step, epoch, loss, loss_<modality> (or the system's own parts), grad_norm,
    val_loss_<modality> (where ``validate_every`` asks for it), learning_rate, pairs_per_second, waiting_for_data (share
    of the time), device_memory_gib (the most it ever held).
    """

    model: System  # in evaluation mode on the CPU
    history: Rows
    heldout: dict[str, float]  # heldout_losses; only in the main process
    checkpoint: Path  # folder of the last one
    resumed_from: int = 0  # the step


@dataclass
class _Run:
    """The parts a step needs: `system` is the model itself, `model` as the processes share it."""

    showing: Showing
    system: System
    model: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress


def pretrain(config: RunConfig, archive: Archive | None = None, quiet: bool = False) -> PretrainResult:
    """Train a Fus-MAE, or the baseline that ``config.system`` names, continuing a run found in the same folder.

    Writes ``pretrain/metrics.jsonl`` (a row an epoch) and ``pretrain/checkpoints/`` below ``config.folder()``. Patches
    are by default those at ``config.data_dir``, or the bundled ones; `quiet` prints nothing. Under ``torchrun`` every
    process calls it, and they share each batch.

    Raises:
        InputError: an empty split, a batch that processes cannot share, a patch that cannot be read, or a folder that
            belongs to another run or that another job holds.
        RunError: a loss, gradient, weight or held-out loss is no longer finite, a checkpoint cannot be written, or a
            process that reads was killed; the last good checkpoint stays.
    """
    archive = archive or open_data(config)
    processes, folder = join_processes(config), config.folder() / "pretrain"
    # the caller's own random state is none of our business
    with only_job(folder) if processes.main else nullcontext(), torch.random.fork_rng(), told_when_killed():
        run = _prepare(config, archive, processes)
        if archive.left_out and not quiet and processes.main:
            line(f"of {archive.root} {archive.said_left_out}")
        checkpoint = latest_checkpoint(folder / "checkpoints")
        if checkpoint is not None:
            run.progress = read_progress(checkpoint, run.progress)
            restore(checkpoint, run.model, run.optimizer, config)
        log, start = TrainingLog(folder, run.showing, run.system, run.progress, quiet), run.progress.step
        if new := start < run.showing.last_step:
            checkpoint = _train(run, log, folder / "checkpoints")
        assert checkpoint is not None  # a run has at least one step
        log.close()
        model = load_model(checkpoint / "model.safetensors", config).to(processes.device)
        heldout = heldout_losses(model, archive, config) if processes.main else {}
        _check_heldout(heldout, checkpoint, new)
    return PretrainResult(model.to("cpu"), log.history, heldout, checkpoint, start)


def _prepare(config: RunConfig, archive: Archive, processes: Processes) -> _Run:
    """Model, optimiser and data in their initial state, which follows from the seed alone."""
    showing = Showing(config, archive, processes)
    torch.manual_seed(derive("initialise", config.seed))
    system = build_model(config)
    draw_by_place(system)
    system.recompute(config.recompute)
    system.to(processes.device)
    compile_blocks(system, config, processes.device)
    model, optimizer = divide_model(system.train(), config, processes)
    precision = "bf16" if uses_bf16(processes.device, config) else "fp32"
    progress = Progress(0, {}, precision, identity_of(showing.dataset), config.model_dump(mode="json"))
    return _Run(showing, system, model, optimizer, progress)


def _train(run: _Run, log: TrainingLog, folder: Path) -> Path:
    """Step after step from where the run stands; returns the folder of the last checkpoint.

    SIGTERM saves one more and then raises :class:`Terminated`.
    """
    showing, config, checkpoint = run.showing, run.showing.config, folder
    with _asked_to_stop() as asked, closing(log.steps()) as steps:
        for step, bands, waited in steps:
            log.add(step, _step(run, bands, step), waited)
            run.progress.step = done = step + 1
            if ends_epoch := done % showing.steps_per_epoch == 0:
                epoch = done // showing.steps_per_epoch
                validate = config.validate_every and epoch % config.validate_every == 0
                log.end_epoch(done, _validate(run) if validate else {})
            asks = showing.processes.size == 1 or done % ASK_EVERY == 0
            stops = asks and showing.processes.agree(asked.is_set())
            if stops or done == showing.last_step or (ends_epoch and epoch % config.checkpoint_every == 0):
                log.read()
                run.progress.sums = log.sums
                checkpoint = save_checkpoint(folder, run.model, run.optimizer, run.progress, config)
            if stops:
                log.close()
                raise Terminated
    showing.processes.wait()  # so that the last checkpoint is complete for every process
    return checkpoint


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM sets while the block runs, where this thread may say so."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _validate(run: _Run) -> dict[str, float]:
    """Losses on the validation split, in every process, for a row of the metrics."""
    run.system.eval()
    losses = heldout_losses(run.system, run.showing.dataset.archive, run.showing.config, against=False)
    run.system.train()
    return {f"val_{name}": value for name, value in losses.items()}


def _step(run: _Run, bands: Bands, step: int) -> Tensor:
    """One optimiser step; returns loss, its parts and the gradient's norm, on the device."""
    showing, config, steps = run.showing, run.showing.config, run.showing.steps_per_epoch
    masks = run.system.draw(showing.batch, generator("masks", config.seed, step), config)
    masks = {name: showing.own(mask) for name, mask in masks.items()}
    images = showing.images(bands, step)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate_at(step, steps, config)
    run.optimizer.param_groups[0]["weight_decay"] = weight_decay_at(step, steps, config)
    run.optimizer.zero_grad(set_to_none=True)
    losses = _accumulate(run, images, masks, step)
    for parameter in run.model.parameters() if config.sensor_dropout else ():
        if parameter.requires_grad and parameter.grad is None:  # of cross-attention, in a step of sensors alone
            parameter.grad = torch.zeros_like(parameter)
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.clip_grad or math.inf)
    run.optimizer.step()
    run.system.after_step(step, showing.planned_steps, showing.processes.sum)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # sharded gradients have a sharded norm
    return torch.cat([losses, norm[None]])


def _accumulate(run: _Run, images: dict[str, Tensor], masks: dict[str, Tensor], step: int) -> Tensor:
    """Gradient of the whole batch, from this process's rows in pieces; returns the losses over all processes."""
    config, processes, batch = run.showing.config, run.showing.processes, run.showing.batch
    together = draw_together(config.modalities, config.sensor_dropout, generator("sensors", config.seed, step))
    places, names = run.showing.own(torch.arange(batch)), run.system.loss_names
    pieces = torch.arange(len(places)).chunk(config.accumulate)
    passes = [(piece, sensors) for piece in pieces for sensors in together]
    losses = torch.zeros(1 + len(names), device=processes.device)
    for number, (piece, sensors) in enumerate(passes, 1):
        rows, share = slice(int(piece[0]), int(piece[-1]) + 1), len(piece) / batch
        place(run.system, places[rows], batch, (config.seed, step))
        alone = number < len(passes) and hasattr(run.model, "no_sync")  # DDP averages gradients in the last pass
        with run.model.no_sync() if alone else nullcontext():
            with autocast(processes.device, config):
                result = run.model({k: images[k][rows] for k in sensors}, {k: v[rows] for k, v in masks.items()})
            loss = _weighted(result, config)
            (loss * (share * processes.size)).backward()  # a batch adds the gradients of its rows
        parts = [result.losses.get(name, torch.zeros_like(loss)) for name in names]
        losses += torch.stack([loss, *parts]).detach() * share
    return processes.sum(losses)


def _weighted(result: Losses, config: RunConfig) -> Tensor:
    """The system's own loss, in the paper the plain sum over sensors (below eq. 9); weights on its parts are ours."""
    if not config.loss_weights:
        return result.loss
    return sum(config.loss_weights.get(name, 1.0) * loss for name, loss in result.losses.items())


def _check_heldout(losses: dict[str, float], checkpoint: Path, new: bool) -> None:
    """RunError if weights that are finite give held-out losses that are not; `new` weights of that kind are dropped."""
    for name, value in losses.items():
        if not math.isfinite(value):
            if new:
                shutil.rmtree(checkpoint)
            raise RunError(
                f"held-out {name} is {value} at {checkpoint.name}{', which is not kept' if new else ''}; "
                f"{kept(checkpoint.parent)}; lower learning_rate and choose another run_dir"
            )
