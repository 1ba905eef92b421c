"""Pretraining: one loop for a laptop, a GPU, and many of them.

Every random choice of step t is drawn from a seed derived from (seed, t), so the state of a run is its weights,
AdamW's moments and t. That is all a checkpoint holds, and a resumed run repeats the undisturbed one exactly.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.locks import only_job
from fusmae_lite.core.progress import line
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.data.archives import Archive, open_data
from fusmae_lite.data.identity import identity_of
from fusmae_lite.data.loader import load, told_when_killed
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.model.drop_path import draw_by_place, place
from fusmae_lite.model.masking import draw_together
from fusmae_lite.systems import System, build_model
from fusmae_lite.systems.weights import load_model
from fusmae_lite.train.checkpoints import Progress, kept, latest_checkpoint, read_progress, restore, save_checkpoint
from fusmae_lite.train.distributed import Processes, compile_blocks, divide_model, join_processes
from fusmae_lite.train.heldout import heldout_losses
from fusmae_lite.train.log import Rows, TrainingLog
from fusmae_lite.train.optimise import autocast, learning_rate_at, uses_bf16, weight_decay_at
from fusmae_lite.train.showing import Bands, Showing


@dataclass
class PretrainResult:
    """A finished (or deliberately stopped) run.

    Args:
        model: the trained model, in evaluation mode on the CPU.
        history: one row an epoch: step, epoch, loss, loss_<modality> (or the system's own parts), grad_norm,
            learning_rate, pairs_per_second, waiting_for_data (share of the time), device_memory_gib (the most it ever
            held; 0 on the CPU).
        heldout: what :func:`~fusmae_lite.train.heldout.heldout_losses` gives; only in the main process.
        checkpoint: folder of the last checkpoint.
        resumed_from: step the run was continued from, 0 for a fresh one.
    """

    model: System
    history: Rows
    heldout: dict[str, float]
    checkpoint: Path
    resumed_from: int = 0


@dataclass
class _Run:
    """The parts a step needs, gathered once: `system` is the model itself, `model` as the processes share it."""

    config: RunConfig
    processes: Processes
    showing: Showing
    system: System
    model: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress

    @property
    def planned_steps(self) -> int:
        return self.config.epochs * self.showing.steps_per_epoch

    @property
    def last_step(self) -> int:
        return min(self.planned_steps, self.config.max_steps or self.planned_steps)

    def own(self, rows: Tensor) -> Tensor:
        """This process's part of what was drawn for a batch: of its pairs, then of its synthetic scenes."""
        return torch.cat([self.processes.own(half) for half in rows.split([self.showing.pairs, self.showing.made])])


def pretrain(config: RunConfig, archive: Archive | None = None, quiet: bool = False) -> PretrainResult:
    """Train a Fus-MAE, or the baseline that ``config.system`` names, continuing a run found in the same folder.

    Writes ``pretrain/metrics.jsonl`` (a row an epoch) and ``pretrain/checkpoints/`` below ``config.folder()``. Under
    ``torchrun`` every process calls it, and they share each batch.

    Args:
        config: everything; see :func:`~fusmae_lite.core.config.load_preset`.
        archive: patches; by default those at ``config.data_dir``, or the bundled ones.
        quiet: print nothing.

    Raises:
        InputError: an empty split, a batch that processes cannot share, a patch that cannot be read, or a folder that
            belongs to another run or that another job holds.
        RunError: the loss or its gradient is no longer finite (names the step and the patches), or weights or held-out
            losses are not, a checkpoint cannot be written, or a process that reads was killed; the last good checkpoint
            stays.
    """
    archive = archive or open_data(config)
    processes, folder = join_processes(config), config.folder() / "pretrain"
    # the caller's own random state is none of our business
    with only_job(folder) if processes.main else nullcontext(), torch.random.fork_rng(), told_when_killed():
        run = _prepare(config, archive, processes)
        log = TrainingLog(folder, processes, run.showing, run.system.loss_names, quiet)
        if archive.left_out and not quiet and processes.main:
            line(f"of {archive.root} {archive.said_left_out}")
        found = latest_checkpoint(folder / "checkpoints")
        if found is not None:
            run.progress = read_progress(found, config, run.progress)
            restore(found, run.model, run.optimizer, config)
        start = run.progress.step
        log.continue_from(start, run.progress.sums)
        checkpoint = _train(run, log, folder / "checkpoints") if start < run.last_step else found
        assert checkpoint is not None  # a run has at least one step
        log.close()
        model = load_model(checkpoint / "model.safetensors", config).to(processes.device)
        heldout = heldout_losses(model, archive, config) if processes.main else {}
        _check_heldout(heldout, checkpoint, new=start < run.last_step)
    return PretrainResult(model.to("cpu"), log.history, heldout, checkpoint, start)


def _prepare(config: RunConfig, archive: Archive, processes: Processes) -> _Run:
    """Model, optimiser and data in their initial state, which follows from the seed alone."""
    dataset = PairDataset(
        archive, split="train", modalities=config.modalities, size=config.image_size, cache=config.cache, native=True
    )
    if len(dataset) < processes.size:
        raise InputError(
            f"{archive.root} has {len(dataset)} patches in the split 'train' for {processes.size} process"
            f"{'es' if processes.size > 1 else ''}",
            "add its split files, or open another archive",
        )
    torch.manual_seed(derive("initialise", config.seed))
    system = build_model(config)
    draw_by_place(system)
    system.recompute(config.recompute)
    system.to(processes.device)
    compile_blocks(system, config, processes.device)
    model, optimizer = divide_model(system.train(), config, processes)
    precision = "bf16" if uses_bf16(processes.device, config) else "fp32"
    progress = Progress(0, {}, precision, identity_of(dataset))
    return _Run(config, processes, Showing(config, dataset), system, model, optimizer, progress)


def _train(run: _Run, log: TrainingLog, folder: Path) -> Path:
    """Step after step from where the run stands; returns the folder of the last checkpoint."""
    config, steps, checkpoint = run.config, run.showing.steps_per_epoch, folder
    for step, bands, waited in _batches(run):
        log.add(step, _step(run, bands, step), waited)
        run.progress.step = done = step + 1
        epoch, ends = done // steps, done == run.last_step
        if done % steps == 0:
            log.end_epoch(epoch, done, steps, learning_rate_at(step, steps, config))
        if ends or (done % steps == 0 and epoch % config.checkpoint_every == 0):
            log.read()
            run.progress.sums = log.sums
            main = run.processes.main
            checkpoint = save_checkpoint(folder, run.model, run.optimizer, run.progress, config, main)
    run.processes.wait()  # nobody reads the last checkpoint before it is there
    return checkpoint


def _batches(run: _Run) -> Iterator[tuple[int, Bands, float]]:
    """(step, this process's bands of the batch, seconds waited for them) for each step that is left.

    One loader serves all of them, across epochs, so that reading never starts anew.
    """
    left = range(run.progress.step, run.last_step)
    rows = (run.processes.own(run.showing.rows(step)).tolist() for step in left)
    pinned = run.processes.device.type == "cuda"
    loader = load(run.showing.dataset, workers=run.config.workers, batch_sampler=rows, pin_memory=pinned)
    asked = time.perf_counter()
    for step, sample in zip(left, loader, strict=True):
        yield step, sample["bands"], time.perf_counter() - asked
        asked = time.perf_counter()


def _step(run: _Run, bands: Bands, step: int) -> Tensor:
    """One optimiser step; returns loss, its parts and the gradient's norm, on the device.

    Everything random is drawn for the whole batch; each process then takes its rows.
    """
    config, steps = run.config, run.showing.steps_per_epoch
    masks = run.system.draw(run.showing.batch, generator("masks", config.seed, step), config)
    masks = {name: run.own(mask) for name, mask in masks.items()}
    images = run.showing.images(bands, step, run.own, run.processes.device)
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
    run.system.after_step(step, run.planned_steps, run.processes.sum)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # sharded gradients have a sharded norm
    return torch.cat([losses, norm[None]])


def _accumulate(run: _Run, images: dict[str, Tensor], masks: dict[str, Tensor], step: int) -> Tensor:
    """Gradient of the whole batch, from this process's rows in pieces; returns the losses over all processes."""
    config, device, batch = run.config, run.processes.device, run.showing.batch
    together = draw_together(config.modalities, config.sensor_dropout, generator("sensors", config.seed, step))
    places, names = run.own(torch.arange(batch)), run.system.loss_names
    pieces = torch.arange(len(places)).chunk(config.accumulate)
    passes = [(piece, sensors) for piece in pieces for sensors in together]
    losses = torch.zeros(1 + len(names), device=device)
    for number, (piece, sensors) in enumerate(passes, 1):
        rows, share = slice(int(piece[0]), int(piece[-1]) + 1), len(piece) / batch
        place(run.system, places[rows], batch, (config.seed, step))
        alone = number < len(passes) and hasattr(run.model, "no_sync")  # DDP averages gradients in the last pass
        with run.model.no_sync() if alone else nullcontext():
            with autocast(device, config):
                result = run.model({k: images[k][rows] for k in sensors}, {k: v[rows] for k, v in masks.items()})
            (result.loss * (share * run.processes.size)).backward()  # a batch adds the gradients of its rows
        parts = [result.losses.get(name, torch.zeros_like(result.loss)) for name in names]
        losses += torch.stack([result.loss, *parts]).detach() * share
    return run.processes.sum(losses)


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
