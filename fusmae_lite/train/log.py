"""What a training run writes about itself: a row an epoch to metrics.jsonl, to TensorBoard if wanted, and to people."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from pydantic import FiniteFloat, TypeAdapter, ValidationError
from torch import Tensor

from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.files import shorten, write_text
from fusmae_lite.core.progress import followed, line
from fusmae_lite.model.system import System
from fusmae_lite.train.checkpoints import Progress
from fusmae_lite.train.optimise import learning_rate_at
from fusmae_lite.train.showing import Bands, Showing

Rows = list[dict[str, float]]
_ROW = TypeAdapter(dict[str, int | FiniteFloat])


class TrainingLog:
    """Metrics of a run, summed over the steps of an epoch; the main process writes them below `folder`, and tells.

    It takes over the rows up to where the run stands and the sums of the epoch it is in; later rows are dropped. Lines
    that are no row, of a file that something else wrote to, are left out, and that is said.
    """

    def __init__(self, folder: Path, showing: Showing, system: System, progress: Progress, quiet: bool) -> None:
        self.path, self.showing, self.losses = folder / "metrics.jsonl", showing, system.loss_names
        self.names = ["loss", *(f"loss_{name}" for name in self.losses), "grad_norm"]
        if progress.sums and set(progress.sums) != set(self.names):
            where = f"{folder / 'checkpoints'}/step-{progress.step:08d}/state.json"
            what = f"{where}: sums of {', '.join(progress.sums)}, not {', '.join(self.names)}"
            raise InputError(what, "remove its folder")
        self.sums, self.start = dict(progress.sums), progress.step
        self.history = [row for row in self._read_rows() if row["step"] <= self.start]
        self._unread: tuple[int, Tensor, float] | None = None
        self._last = self.start - 1  # step that was read
        self._board = None
        if showing.config.tensorboard and showing.processes.main:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._board = SummaryWriter(str(folder / "tensorboard"))
        self._tells = showing.processes.main and not quiet
        if self._tells:
            self._say_what_runs(sum(p.numel() for p in system.parameters() if p.requires_grad))
        self._start_clock()

    def _say_what_runs(self, weights: int) -> None:
        showing, config = self.showing, self.showing.config
        pairs = f"{len(showing.dataset):,} {showing.dataset.archive.kind_of_pairs}"
        name = config.system if config.system != "fusmae" else config.fusion
        where = f"{showing.processes.size} x {showing.processes.device.type}"
        folder = shorten(self.path.parent.resolve())
        line(f"{name}, {weights / 1e6:.2f} million weights, {pairs}, {where}, in {folder}")
        if self.start >= showing.last_step:
            line(f"was finished before, at step {self.start}")
        elif self.start:
            line(f"continues at step {self.start:,} of {showing.last_step:,}")

    def _read_rows(self) -> Rows:
        rows, lines = [], self.path.read_bytes().splitlines() if self.path.is_file() else []
        for text in lines:
            with suppress(ValidationError):
                rows.append(_ROW.validate_json(text, strict=True))
        rows = [row for row in rows if {"step", "epoch", *self.names} <= row.keys()]
        if len(rows) < len(lines) and self.showing.processes.main:
            line(f"{self.path}: {len(lines) - len(rows)} of {len(lines)} lines are no rows and are left out")
        return rows

    def steps(self) -> Iterator[tuple[int, Bands, float]]:
        """:meth:`Showing.batches` of the steps that are left, with a bar or lines for people."""
        batches = self.showing.batches(self.start)
        return followed(batches, self._title, self.showing.last_step, self.start) if self._tells else batches

    def _title(self) -> str:
        """With the mean loss of the epoch so far, and the learning rate."""
        if not self.sums:
            return "steps"
        loss = self.sums["loss"] / (self._last % self.showing.steps_per_epoch + 1)
        return f"steps, loss {loss:.3f}, lr {self._rate_at(self._last):.1e}"

    def add(self, step: int, metrics: Tensor, waited: float) -> None:
        """One step: its metrics in the order of `names`, on the device, and the seconds it waited for data.

        They are read when the next step is under way: asking a GPU earlier would make both wait.
        """
        self.read()
        self._unread = step, metrics, waited

    def read(self) -> None:
        """Read what is not yet read; RunError for a metric that is not finite, before anything is saved."""
        if self._unread is None:
            return
        (step, metrics, waited), self._unread = self._unread, None
        for name, value in zip(self.names, metrics.tolist(), strict=True):
            if not math.isfinite(value):
                patches = ", ".join(self.showing.dataset.name(int(i)) for i in self.showing.rows(step))
                raise RunError(
                    f"{name} is {value} at step {step} on patches {patches}; look at them in notebook 01, or lower "
                    "learning_rate; the last checkpoint is intact"
                )
            self.sums[name] = self.sums.get(name, 0.0) + value
        self._seen += self.showing.batch
        self._waited, self._last = self._waited + waited, step

    def end_epoch(self, step: int, validated: dict[str, float]) -> None:
        """Turn the sums into a row and write it, after so many steps; twenty lines a run are printed at most."""
        self.read()
        config, device, steps = self.showing.config, self.showing.processes.device, self.showing.steps_per_epoch
        epoch, rate = step // steps, self._rate_at(step - 1)
        elapsed = time.perf_counter() - self._started
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        row = {"step": step, "epoch": epoch} | {name: value / steps for name, value in self.sums.items()}
        row |= validated | {"learning_rate": rate, "pairs_per_second": self._seen / elapsed}
        row |= {"waiting_for_data": self._waited / elapsed, "device_memory_gib": memory / 2**30}
        self.sums.clear()
        self._start_clock()
        self.history.append(row)
        if not self.showing.processes.main:
            return
        # The whole history, replaced in one step: a reader never sees half a row
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.history))
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()
        if self._tells and (epoch % math.ceil(config.epochs / 20) == 0 or epoch == config.epochs):
            losses = "  ".join(f"{name} {row[f'loss_{name}']:.3f}" for name in self.losses)
            waiting = f"  {row['waiting_for_data']:.0%} waiting" if row["waiting_for_data"] >= 0.05 else ""
            speed = f"lr {rate:.2e}  {row['pairs_per_second']:.0f} pairs/s{waiting}"
            line(f"epoch {epoch:4d}/{config.epochs}  {losses}  {speed}")

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self._board is not None:
            self._board.close()

    def _rate_at(self, step: int) -> float:
        return learning_rate_at(step, self.showing.steps_per_epoch, self.showing.config)

    def _start_clock(self) -> None:
        self._started, self._seen, self._waited = time.perf_counter(), 0, 0.0
