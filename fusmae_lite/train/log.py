"""What a training run writes about itself: a row an epoch to metrics.jsonl, to TensorBoard if wanted, and to people."""

import json
import math
import time
from contextlib import suppress
from pathlib import Path

import torch
from pydantic import FiniteFloat, TypeAdapter, ValidationError
from torch import Tensor
from tqdm import tqdm

from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.files import shorten, write_text
from fusmae_lite.core.progress import duration, interactive, line
from fusmae_lite.train.optimise import learning_rate_at
from fusmae_lite.train.showing import Showing

Rows = list[dict[str, float]]
SECONDS_BETWEEN_LINES = 60
_ROW = TypeAdapter(dict[str, int | FiniteFloat])


class TrainingLog:
    """Metrics of a run, summed over the steps of an epoch; the main process writes them below `folder`."""

    def __init__(self, folder: Path, showing: Showing, losses: tuple[str, ...], quiet: bool) -> None:
        self.path, self.showing, self.losses, self.quiet = folder / "metrics.jsonl", showing, losses, quiet
        self.names = ["loss", *(f"loss_{name}" for name in losses), "grad_norm"]
        self.history: Rows = []
        self.sums: dict[str, float] = {}
        self._unread: tuple[int, Tensor, float] | None = None
        self._board, self._bar = None, None
        if showing.config.tensorboard and showing.processes.main:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._board = SummaryWriter(str(folder / "tensorboard"))
        self._start_clock()

    def open(self, start: int, weights: int) -> None:
        """Say what runs, where, and from which step; the bar begins."""
        showing, config = self.showing, self.showing.config
        if self.quiet or not showing.processes.main:
            return
        pairs = f"{len(showing.dataset):,} {showing.dataset.archive.kind_of_pairs}"
        name = config.system if config.system != "fusmae" else config.fusion
        where = f"{showing.processes.size} x {showing.processes.device.type}"
        folder = shorten(self.path.parent.resolve())
        line(f"{name}, {weights / 1e6:.2f} million weights, {pairs}, {where}, in {folder}")
        if start >= showing.last_step:
            line(f"was finished before, at step {start}")
        elif start:
            line(f"continues at step {start:,} of {showing.last_step:,}")
        self._bar = tqdm(total=showing.last_step, initial=start, disable=not interactive(), desc="steps", leave=False)
        self._said, self._began, self._first = time.monotonic(), time.perf_counter(), start

    def _tell(self, step: int) -> None:
        """Move the bar or, where none can move, print a line a minute."""
        if self._bar is None:
            return
        self._bar.update(step + 1 - self._bar.n)
        within = step % self.showing.steps_per_epoch + 1
        mean = self.sums.get("loss", math.nan) / within
        rate = learning_rate_at(step, self.showing.steps_per_epoch, self.showing.config)
        if not self._bar.disable:
            self._bar.set_postfix_str(f"loss {mean:.3f}, lr {rate:.1e}", refresh=False)
        elif time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            elapsed = time.perf_counter() - self._began
            left = elapsed / max(1, step + 1 - self._first) * (self.showing.last_step - step - 1)
            line(f"step {step + 1:,} of {self.showing.last_step:,}  loss {mean:.3f}  {duration(left)} to go")

    def continue_from(self, step: int, sums: dict[str, float]) -> None:
        """Take over the rows up to a checkpoint and the sums of the epoch it lies in; later rows are dropped.

        Lines that are no row, of a file that something else wrote to, are left out, and that is said.
        """
        if sums and set(sums) != set(self.names):
            where = f"{self.path.parent / 'checkpoints'}/step-{step:08d}/state.json"
            raise InputError(f"{where}: sums of {', '.join(sums)}, not {', '.join(self.names)}", "remove its folder")
        self.sums, rows = dict(sums), []
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        for text in lines:
            with suppress(ValidationError):
                rows.append(_ROW.validate_json(text, strict=True))
        rows = [row for row in rows if {"step", "epoch", *self.names} <= row.keys()]
        if len(rows) < len(lines) and self.showing.processes.main:
            line(f"{self.path}: {len(lines) - len(rows)} of {len(lines)} lines are no rows and are left out")
        self.history = [row for row in rows if row["step"] <= step]

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
        self._waited += waited
        self._tell(step)

    def end_epoch(self, step: int, validated: dict[str, float]) -> None:
        """Turn the sums into a row and write it, after so many steps; twenty lines a run are printed at most."""
        self.read()
        config, device, steps = self.showing.config, self.showing.processes.device, self.showing.steps_per_epoch
        epoch, rate = step // steps, learning_rate_at(step - 1, steps, config)
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
        if not self.quiet and (epoch % math.ceil(config.epochs / 20) == 0 or epoch == config.epochs):
            losses = "  ".join(f"{name} {row[f'loss_{name}']:.3f}" for name in self.losses)
            waiting = f"  {row['waiting_for_data']:.0%} waiting" if row["waiting_for_data"] >= 0.05 else ""
            speed = f"lr {rate:.2e}  {row['pairs_per_second']:.0f} pairs/s{waiting}"
            line(f"epoch {epoch:4d}/{config.epochs}  {losses}  {speed}")

    def close(self) -> None:
        """Let go of the bar and of TensorBoard's file."""
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()

    def _start_clock(self) -> None:
        self._started, self._seen, self._waited = time.perf_counter(), 0, 0.0
