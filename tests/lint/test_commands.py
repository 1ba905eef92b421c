"""Commands on a page are found by the shell that its reader has."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from fusmae_lite.core.config import project_root

ROOT = project_root()
ACTIVATE = "source .venv/bin/activate"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RESULTS.md")]
PAGES += sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "notebooks").glob("*.ipynb"))
#: In a block of its own line, fenced or indented.
BARE = re.compile(r"^(?: {4})?(fusmae|papermill|torchrun|jupyter|pytest|python|pre-commit) +\S", re.M)


def text_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", [path for path in PAGES if BARE.search(text_of(path))], ids=lambda path: path.stem)
def test_the_environment_is_activated_before_a_bare_command(path: Path) -> None:
    text = text_of(path)
    assert ACTIVATE in text[: BARE.search(text).start()], BARE.search(text)[0]


def test_pages_with_bare_commands_are_found() -> None:
    found = {path.stem[:2] for path in PAGES if BARE.search(text_of(path))}
    assert {"RE", "00", "05", "08"} <= found
