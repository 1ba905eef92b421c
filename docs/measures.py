"""The form of every notebook, measured, beside the limits that tests/lint/test_notebooks_form.py holds it to.

python docs/measures.py        # writes docs/notebooks.md
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = (
    "notebook", "cells", "prose per code", "median lines", "longest", "words", "MB", "pictures", "predict, then run",
    "pitfalls", "exercises", "minutes to read", "with exercises",
)  # fmt: skip
HEAD = """# The notebooks in numbers

Written by `python docs/measures.py`; `tests/lint/test_generated.py` keeps it current. Limits, from the teaching
repositories we learned most from: 40 to 90 cells (20 for the opening one), 1.0 to 1.8 prose cells for a code cell,
code cells of 3 to 9 lines in the median and none above 40, 1,500 to 3,500 words (800 for the opening one), below
1.5 MB stored, at least one picture, three to five exercises (none in the opening one).
Minutes: 200 words in one, a quarter for a code cell, one for a picture, four for an exercise; talk comes on top.

"""


def words(prose: list[str]) -> int:
    """Words a reader reads: no formulas, no code blocks, no addresses."""
    drop = r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|\(data:[^)]*\)|\]\([^)]*\)"
    text = re.sub(drop, " ", "\n".join(prose), flags=re.S)
    return len(re.findall(r"[A-Za-z][\w'’-]*|\d[\d.,]*", text))


def row(path: Path) -> str:
    """One line of the table."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    lines = [len(cell.source.splitlines()) for cell in code]
    pictures = sum("image/png" in output.get("data", {}) for cell in code for output in cell.get("outputs", []))
    text = "\n".join(prose).lower()
    exercises = sum(len(re.findall(r"^check\(", cell.source, re.M)) for cell in code)
    minutes = words(prose) / 200 + len(code) / 4 + pictures
    numbers = [
        len(cells), f"{len(prose) / len(code):.2f}", f"{statistics.median(lines):g}", max(lines), f"{words(prose):,}",
        f"{path.stat().st_size / 1e6:.2f}", pictures, text.count("predict, then run"), text.count("pitfall."),
        exercises, round(minutes), round(minutes + 4 * exercises),
    ]  # fmt: skip
    return f"| [{path.stem}](../notebooks/{path.name}) | " + " | ".join(map(str, numbers)) + " |\n"


def table() -> str:
    """The whole page."""
    rows = [f"| {' | '.join(COLUMNS)} |\n", f"|---{'|--:' * (len(COLUMNS) - 1)}|\n"]
    return HEAD + "".join(rows) + "".join(row(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb")))


if __name__ == "__main__":
    target = ROOT / "docs" / "notebooks.md"
    target.write_text(table(), encoding="utf-8")
    print(table())
