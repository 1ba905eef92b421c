"""A table of evaluation as a reader gets it: Markdown, CSV and JSON that say what was scored on what."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fusmae_lite.core.files import write_text
from fusmae_lite.evaluation.transfer import TransferRow, transfer_markdown

OVER = "over test patches and seeds"


@dataclass(frozen=True)
class Row:
    """One cell of the table: a system seen through some sensors.

    Args:
        system: what produced the features.
        sensors: ``S1``, ``S2``, ``S1+S2``, or ``none``.
        micro: micro average precision, mean over `seeds`.
        macro: macro average precision, mean over `seeds`.
        low, high: ends of the 95 % bootstrap interval of `micro` over test patches and seeds.
        seeds: how many head initialisations (and random encoders) were averaged.
        train: labelled patches trained on.
        test: patches scored.
        macro_low, macro_high: ends of the interval of `macro`, over the same redraws.
    """

    system: str
    sensors: str
    micro: float
    macro: float
    low: float
    high: float
    seeds: int
    train: int
    test: int
    macro_low: float
    macro_high: float


@dataclass(frozen=True)
class About:
    """What a table rests on.

    Args:
        weights: of the pretrained system: a shipped name, or a path relative to the run's folder or the project.
        fusion: xae, xad, both or none.
        digest: of the weights, see :func:`~fusmae_lite.systems.weights.digest_of`.
        archive: format and folder.
        protocol: linear, finetune or transfer.
        label_fraction: share of the training labels that were used.
        version: of the package.
    """

    weights: str
    fusion: str
    digest: str
    archive: str
    protocol: str
    label_fraction: float
    version: str

    def __str__(self) -> str:
        return (
            f"Weights {self.weights} (fusion {self.fusion}, SHA-256 {self.digest}); archive {self.archive}; protocol "
            f"{self.protocol}; {100 * self.label_fraction:g} % of the training labels; fusmae-lite {self.version}."
        )


class Table(list[Any]):
    """Rows of evaluation, :class:`~fusmae_lite.evaluation.Row` or ``TransferRow``, and `about`, what they rest on."""

    def __init__(self, rows: Iterable[Row] | Iterable[TransferRow], about: About) -> None:
        super().__init__(rows)
        self.about = about


def as_markdown(rows: Sequence[Row] | Sequence[TransferRow]) -> str:
    """The table as Markdown, scores in percent with one decimal; below a :class:`Table`, what it rests on."""
    text = transfer_markdown(rows) if isinstance(rows[0], TransferRow) else _multi_label(rows)
    return f"{text}\n{rows.about}\n" if isinstance(rows, Table) else text


def _multi_label(rows: Sequence[Row]) -> str:
    lines = [
        f"| system | sensors | micro AP | 95 % interval of micro, {OVER} | macro AP | 95 % interval of macro, {OVER} "
        "| seeds | train | test |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.system} | {r.sensors} | {100 * r.micro:.1f} | {100 * r.low:.1f} - {100 * r.high:.1f} "
            f"| {100 * r.macro:.1f} | {100 * r.macro_low:.1f} - {100 * r.macro_high:.1f} "
            f"| {r.seeds} | {r.train} | {r.test} |"
        )
    return "\n".join(lines) + "\n"


def write_table(table: Table, folder: Path) -> Table:
    """Write ``table-<protocol>.json``, ``.md`` and ``.csv`` into `folder`, each in one step; returns the table."""
    about, rows, text = asdict(table.about), [asdict(row) for row in table], io.StringIO()
    writer = csv.DictWriter(text, fieldnames=[*rows[0], *about])
    writer.writeheader()
    writer.writerows({**row, **about} for row in rows)
    contents = {"json": json.dumps({**about, "rows": rows}, indent=1), "md": as_markdown(table), "csv": text.getvalue()}
    for suffix, content in contents.items():
        write_text(folder / f"table-{table.about.protocol}.{suffix}", content)
    return table
