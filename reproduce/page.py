"""Writes the tables and pictures, and puts them between the marks of RESULTS.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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


class Report(NamedTuple):
    """What was written: the folder of tables and pictures, and the tables as Markdown by name."""

    folder: Path
    tables: dict[str, str]


def write_report(plan: Plan, folder: Path, page: bool = False) -> Report:
    """Tables as Markdown and CSV, figures as PNG, in ``folder/report``; with `page` in RESULTS.md and docs/results too.

    Raises:
        InputError: no finished track, or a RESULTS.md that lacks the marks of a table.
    """
    tracks = folder / "tracks"
    scored = {data: Scores(tracks, data, plan.redraws) for data in TITLES if any(tracks.glob(f"{data}-*.json"))}
    if not scored:
        raise InputError(f"{folder} holds no finished track", "run `fusmae results` first")
    report = Report(folder / "report", dict(_tables(plan, scored, folder)))
    files = {f"{name}.md": text.encode() for name, text in report.tables.items()}
    files["cells.csv"] = tables.cells_csv(scored.values()).encode()
    files["per_class.csv"] = tables.per_class_csv(scored.values(), plan.systems).encode()
    pictures = {f"{name}.png": png(figure) for name, figure in _figures(plan, scored)}
    for target in [report.folder, *([project_root() / "docs" / "results"] if page else [])]:
        for name, content in {**files, **pictures}.items():
            write_bytes(target / name, content)
    if page:
        path = project_root() / "RESULTS.md"
        write_text(path, fill(path.read_text(encoding="utf-8"), report.tables))
    line(f"{len(report.tables)} tables and {len(pictures)} pictures in {report.folder}")
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


def _tables(plan: Plan, scored: dict[str, Scores], folder: Path) -> Iterator[tuple[str, str]]:
    for data, scores in scored.items():
        yield f"finetuned-{data}", tables.table_1(plan, scores, "finetuned", 1.0)
        for fraction in dict.fromkeys((plan.sparse, 1.0)):
            text = tables.table_1(plan, scores, "linear", fraction)
            if text.count("\n") > 3:  # more than its head and the class prior
                yield f"linear-{data}-{100 * fraction:g}", text
        yield f"macro-{data}", tables.macro_table(plan, scores, 1.0)
        yield f"losses-{data}", tables.loss_table(plan, scores)
        if "xae" in scores.keys:
            yield f"comparison-{data}", tables.comparison(plan, scores)
        yield f"refused-{data}", tables.refusals(scores)
    if "truth" in scored:
        for protocol in ("linear", "finetuned"):
            yield f"kinds-{protocol}", tables.kinds_table(plan, scored["truth"], protocol)
    main = scored.get("truth") or scored.get("given")
    if main is not None and any("land cover" in fact["classes"] for fact in main.facts):
        for sensors in ("S1", "S2"):
            yield f"transfer-{sensors}", tables.table_2(plan, main, sensors)
    if main is not None and "xae" in main.keys:
        yield "ablations", tables.ablation_table(plan, main)
    if (folder / "leakage.json").is_file():
        yield "leakage", tables.leakage_table(measure_leakage(folder / "leakage.json"))


def _figures(plan: Plan, scored: dict[str, Scores]) -> Iterator[tuple[str, Figure]]:
    for data, scores in scored.items():
        yield f"losses-{data}", figures.losses(plan, scores)
        yield f"classes-{data}", figures.class_map(plan, scores, "linear")
        if data != "real":
            yield f"curves-{data}", figures.label_curves(plan, scores)
    if "truth" in scored:
        yield "kinds", figures.kinds_map(plan, scored["truth"])
    main = scored.get("truth") or scored.get("given")
    figure = figures.confusion(plan, main) if main is not None else None
    if figure is not None:
        yield "confusion", figure
