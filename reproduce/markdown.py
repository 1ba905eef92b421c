"""Cells and rows of the tables in Markdown. Percent everywhere, three digits; a gap carries its paired interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reproduce.scores import Cell

DASH = "–"  # there is no such cell


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are aligned left; rows of dashes alone are left out."""
    shown = [list(row) for row in rows if any(cell != DASH for cell in list(row)[left:])]
    lines = [list(head), ["---"] * left + ["--:"] * (len(head) - left), *shown]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def percent(value: float, sign: str = "") -> str:
    """A share as percent with one decimal."""
    return f"{100 * value:{sign}.1f}"


def shown(cell: Cell | None) -> str:
    """``62.3 (58.0 to 66.1)``."""
    if cell is None:
        return DASH
    return f"{percent(cell.mean)} ({' to '.join(map(percent, cell.interval))})"


def gap(one: Cell | None, other: Cell | None, columns: tuple[int, ...] | None = None) -> str:
    """``+1.2 (-0.3 to +2.6)``, in bold where the interval excludes 0; cells of other seeds are not compared."""
    if one is None or other is None or one.seeds != other.seeds:
        return DASH
    compared = one.minus(other, columns)
    difference, low, high = (percent(value, "+") for value in compared)
    text = f"{difference} ({low} to {high})"
    return text if compared.verdict == "not told apart" else f"**{text}**"
