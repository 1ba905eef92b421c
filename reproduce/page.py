"""Writes the tables and pictures, and puts them between the marks of RESULTS.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import write_bytes, write_text
from fusmae_lite.core.progress import line
from fusmae_lite.show.pictures import png
from reproduce import figures, tables
from reproduce.leakage import measure_leakage
from reproduce.plan import Plan
from reproduce.scores import Scores

TITLES = {"truth": "synthetic archive with known truth", "real": "bundled real pairs", "given": "the archive given"}


@dataclass(frozen=True)
class Report:
    """What was written.

    Args:
        folder: of the tables and pictures.
        tables: name -> Markdown.
    """

    folder: Path
    tables: dict[str, str]


def write_report(plan: Plan, folder: Path, page: bool = False) -> Report:
    """Tables as Markdown and CSV, figures as PNG, in ``folder/report``; with `page` in RESULTS.md and docs/results too.

    Raises:
        InputError: no finished track, or a RESULTS.md that lacks the marks of a table.
    """
    found = {data: Scores(folder / "tracks", data, plan.redraws) for data in TITLES
             if any((folder / "tracks").glob(f"{data}-*.json"))}  # fmt: skip
    if not found:
        raise InputError(f"{folder} holds no finished track", "run `fusmae results` first")
    made = dict(_tables(plan, found, folder))
    report = Report(folder / "report", made)
    for target in [report.folder, *([project_root() / "docs" / "results"] if page else [])]:
        for name, text in made.items():
            write_text(target / f"{name}.md", text)
        write_text(target / "cells.csv", tables.cells_csv(plan, found.values()))
        write_text(target / "per_class.csv", tables.per_class_csv(found.values(), plan.systems))
    pictures = {name: png(figure) for name, figure in _figures(plan, found)}
    for target in [report.folder, *([project_root() / "docs" / "results"] if page else [])]:
        for name, content in pictures.items():
            write_bytes(target / f"{name}.png", content)
    if page:
        path = project_root() / "RESULTS.md"
        write_text(path, fill(path.read_text(encoding="utf-8"), made))
    line(f"{len(made)} tables and {len(pictures)} pictures in {report.folder}")
    return report


def fill(text: str, made: dict[str, str]) -> str:
    """`text` with every table put between ``<!-- table NAME -->`` and ``<!-- end -->``.

    Raises:
        InputError: the text asks for a table that was not made.
    """
    wanted = re.findall(r"<!-- table ([\w-]+) -->", text)
    missing = [name for name in wanted if name not in made]
    if missing:
        raise InputError(f"RESULTS.md asks for table {missing[0]!r}", f"those made: {', '.join(made)}")

    def put(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n{made[match[1]]}<!-- end -->"

    return re.sub(r"<!-- table ([\w-]+) -->\n.*?<!-- end -->", put, text, flags=re.S)


def _tables(plan: Plan, found: dict[str, Scores], folder: Path) -> Iterator[tuple[str, str]]:
    for data, scores in found.items():
        yield f"finetuned-{data}", tables.table_1(plan, scores, "finetuned", 1.0)
        for fraction in dict.fromkeys((plan.sparse, 1.0)):
            text = tables.table_1(plan, scores, "linear", fraction)
            if text.count("\n") > 3:  # more than its head and the class prior
                yield f"linear-{data}-{100 * fraction:g}", text
        yield f"macro-{data}", tables.macro_table(plan, scores, 1.0)
        yield f"losses-{data}", tables.loss_table(plan, scores)
        if "xae" in scores.keys:
            yield f"comparison-{data}", tables.comparison(plan, scores)
        reasons = tables.refusals(plan, scores)
        yield f"refused-{data}", "".join(f"- {reason}\n" for reason in reasons) or "Nothing was refused.\n"
    main = found.get("truth") or found.get("given")
    if "truth" in found:
        for protocol in ("linear", "finetuned"):
            yield f"kinds-{protocol}", tables.kinds_table(plan, found["truth"], protocol)
    if main is not None and any("land cover" in fact["classes"] for fact in main.facts):
        for sensors in ("S1", "S2"):
            yield f"transfer-{sensors}", tables.table_2(plan, main, sensors)
    if main is not None and "xae" in main.keys:
        yield "ablations", tables.ablation_table(plan, main)
    if (folder / "leakage.json").is_file():
        yield "leakage", tables.leakage_table(measure_leakage(folder / "leakage.json"))


def _figures(plan: Plan, found: dict[str, Scores]) -> Iterator[tuple[str, Figure]]:
    for data, scores in found.items():
        yield f"losses-{data}", figures.losses(plan, scores)
        yield f"classes-{data}", figures.class_map(plan, scores, "linear")
        if data != "real":
            yield f"curves-{data}", figures.label_curves(plan, scores)
    if "truth" in found:
        yield "kinds", figures.kinds_map(plan, found["truth"])
    main = found.get("truth") or found.get("given")
    figure = figures.confusion(plan, main) if main is not None else None
    if figure is not None:
        yield "confusion", figure
