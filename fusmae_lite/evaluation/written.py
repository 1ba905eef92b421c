"""A table of evaluation as a reader gets it: Markdown, CSV and JSON that say what was scored on what."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from fusmae_lite.core.files import write_text


class Row(Protocol):
    """A dataclass that says how a reader sees it: heading of a column -> its field, or the two ends of an interval."""

    columns: ClassVar[dict[str, str]]


@dataclass(frozen=True)
class About:
    """What a table rests on."""

    weights: str  # of the pretrained system: a shipped name, or a path relative to the run's folder or the project
    fusion: str  # xae, xad, both or none
    digest: str  # of the weights, see digest_of
    archive: str  # format and folder
    protocol: str  # linear, finetune or transfer
    label_fraction: float  # share of the training labels that were used
    version: str  # of the package

    def __str__(self) -> str:
        return (
            f"Weights {self.weights} (fusion {self.fusion}, SHA-256 {self.digest}); archive {self.archive}; protocol "
            f"{self.protocol}; {100 * self.label_fraction:g} % of the training labels; fusmae-lite {self.version}."
        )


class Table(list[Any]):
    """Rows of evaluation, and `about`, what they rest on."""

    def __init__(self, rows: Iterable[Row], about: About) -> None:
        super().__init__(rows)
        self.about = about


def as_markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown, scores in percent with one decimal; below a :class:`Table`, what it rests on."""
    columns = rows[0].columns
    texts = [[*columns]]
    for row in rows:
        texts.append([" - ".join(_text(getattr(row, field)) for field in pair.split()) for pair in columns.values()])
    head, *lines = ["| " + " | ".join(fields) + " |\n" for fields in texts]
    text = head + "|" + "---|" * len(columns) + "\n" + "".join(lines)
    return text + (f"\n{rows.about}\n" if isinstance(rows, Table) else "")


def _text(value: object) -> str:
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)


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
