"""Writes the tables and pictures, and puts them between the marks of RESULTS.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import write_bytes, write_text
from fusmae_lite.core.progress import line
from fusmae_lite.show.pictures import png
from reproduce.figures import all_figures
from reproduce.leakage import measure_leakage
from reproduce.plan import Plan
from reproduce.scores import Scores
from reproduce.tables import Tables, leakage


class Report(NamedTuple):
    """What was written: the folder of tables and pictures, and the tables as Markdown by name."""

    folder: Path
    tables: dict[str, str]


def write_report(plan: Plan, folder: Path, page: bool = False) -> Report:
    """Tables as Markdown, scores as CSV, figures as PNG, in ``folder/report``; with `page` in this checkout too.

    Raises:
        InputError: no finished track, or a RESULTS.md that lacks the marks of a table.
    """
    scores = Scores(folder / "tracks", plan.redraws)
    tables = Tables(plan, scores)
    report = Report(folder / "report", dict(tables.all()))
    if (folder / "leakage.json").is_file():
        report.tables["leakage"] = leakage(measure_leakage(folder / "leakage.json"))
    files = {f"{name}.md": text.encode() for name, text in report.tables.items()}
    files["scores.csv"] = scores.table.drop(columns=["path", "cell"]).to_csv(index=False, float_format="%.4f").encode()
    files |= {f"{name}.png": png(figure) for name, figure in all_figures(tables)}
    for target in [report.folder, *([project_root() / "docs" / "results"] if page else [])]:
        for name, content in files.items():
            write_bytes(target / name, content)
    if page:
        path = project_root() / "RESULTS.md"
        write_text(path, fill(path.read_text(encoding="utf-8"), report.tables))
    hours = sum(fact["seconds"] for fact in scores.facts.values()) / 3600
    line(f"{len(report.tables)} tables in {report.folder}; {len(scores.facts)} tracks, {hours:.2f} processor hours")
    return report


def fill(text: str, made: dict[str, str]) -> str:
    """`text` with every table put between ``<!-- table NAME -->`` and ``<!-- end -->``.

    Raises:
        InputError: the text asks for a table that was not made.
    """
    missing = [name for name in re.findall(r"<!-- table ([\w-]+) -->", text) if name not in made]
    if missing:
        raise InputError(f"RESULTS.md asks for table {missing[0]!r}", f"those made: {', '.join(made)}")

    def put(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n{made[match[1]]}<!-- end -->"

    return re.sub(r"<!-- table ([\w-]+) -->\n.*?<!-- end -->", put, text, flags=re.S)
