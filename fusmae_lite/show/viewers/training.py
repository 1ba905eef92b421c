"""A training run, running or finished, as its metrics file tells it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets as w

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import parse_object
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.show.panels import Curve, draw_curves
from fusmae_lite.show.pictures import colour_of
from fusmae_lite.show.viewers.base import Viewer, choice, slider


class TrainingMonitor(Viewer):
    """Loss curves of a run; the play button follows a run that is still going, from the same or another process.

    Args:
        run: the run's folder, or its metrics.jsonl.
        every: seconds between two looks at the file while playing.
    """

    def __init__(self, run: Path | str, *, every: float = 2.0) -> None:
        super().__init__("Training")
        if not every > 0:
            raise InputError(f"every={every:g} seconds", "give a positive number")
        self.path = metrics_path(run)
        self._drawn: tuple[object, tuple[bytes, str]] = None, (b"", "")
        self.follow = w.Play(max=10**6, interval=round(1000 * every), description="follow the run")
        self.again = w.Button(description="Read again", icon="refresh", tooltip="read the metrics file now")
        self.again.on_click(lambda _button: self.refresh())
        self.x = choice("across", ["step", "epoch"])
        self.skip = slider("leave out first, %", 0, 95, 0)
        self.skip.style.description_width = "initial"
        self.skip.step = 5
        self.assemble([self.follow, self.x, self.skip], w.HBox([self.follow, self.again, self.x, self.skip]))

    def draw(self) -> tuple[bytes, str]:
        try:
            state = self.path.stat()
        except OSError:
            raise InputError(f"no {self.path}", "start training (notebook 05), or give the run's folder") from None
        asked = (state.st_mtime_ns, state.st_size, self.x.value, self.skip.value)
        if asked != self._drawn[0]:  # an unchanged file costs one look at its date
            rows = read_metrics(self.path)
            shown = rows[min(len(rows) * self.skip.value // 100, len(rows) - 1) :]
            curves = loss_curves(shown, self.x.value)
            page = draw_curves(curves, self.x.value, "training loss", f"{len(rows)} epochs written")
            self._drawn = asked, (page, training_words(rows))
        return self._drawn[1]


def metrics_path(run: Path | str) -> Path:
    """The metrics.jsonl of a run's folder, of its ``pretrain`` folder, or the file itself. It need not exist yet."""
    path = Path(run).expanduser()
    if path.suffix == ".jsonl":
        return path
    return path / "metrics.jsonl" if (path / "metrics.jsonl").is_file() else path / "pretrain" / "metrics.jsonl"


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows with a finite loss; half a row at the end, of a run that is writing, is left for the next time.

    Raises:
        InputError: no row yet, or a line that is no row of metrics.
    """
    lines, rows = path.read_text(encoding="utf-8", errors="replace").splitlines(), []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_object(line)
            losses = [float(value) for key, value in row.items() if key.startswith("loss")]
        except (ValueError, TypeError):
            if number == len(lines):
                break
            raise InputError(f"{path}: line {number} is no row of metrics", "give the metrics.jsonl of a run") from None
        if losses and all(math.isfinite(value) for value in losses):
            rows.append(row)
    if not rows:
        raise InputError(f"{path}: no epoch with a finite loss yet", "wait for the first epoch, then read again")
    return rows


def loss_curves(rows: Sequence[Mapping[str, float]], x: str) -> dict[str, Curve]:
    """Sensor, or whatever else a ``loss_<name>`` belongs to, -> its loss over `x`; InputError where no row has both."""
    curves = {}
    for key in sorted({key for row in rows for key in row if key.startswith("loss_")}):
        points = [(row[x], row[key]) for row in rows if x in row and key in row]
        if points:
            name = key.removeprefix("loss_")
            curves[loss_title(name)] = Curve(*zip(*points, strict=True), colour_of(name))
    if not curves:
        raise InputError(f"no row with {x!r} and a loss_<name>", "give the metrics.jsonl of a run")
    return curves


def loss_title(name: str) -> str:
    """A sensor's title, or the name itself, as of ``loss_dino``, in capitals."""
    try:
        return get_modality(name).title
    except InputError:
        return name.upper()


def training_words(rows: Sequence[Mapping[str, float]]) -> str:
    """Where the run stands, in words."""
    first, last = rows[0], rows[-1]
    names = [key for key in last if key.startswith("loss_")]
    losses = "; ".join(
        f"{key.removeprefix('loss_').upper()} {first.get(key, math.nan):.3f} to {last[key]:.3f}" for key in names
    )
    speed = f", {last['pairs_per_second']:.0f} pairs a second" if "pairs_per_second" in last else ""
    where = f"Epoch {last.get('epoch', '?')}, step {last.get('step', '?')}{speed}"
    return f"{where}. Training loss, first to last epoch: {losses}."
