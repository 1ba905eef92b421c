"""Links to a section, on any page, lead to one: seen here in a second, and by `make site` only after a minute."""

import re
from pathlib import Path

import nbformat
import pytest

from fusmae_lite.core.config import project_root

ROOT = project_root()
PAGES = [path for glob in ("*.md", "docs/*.md", "notebooks/*.ipynb", "*/README.md") for path in ROOT.glob(glob)]
LINK = re.compile(r"\]\(([^)\s#]*)#([^)\s]+)\)")


def prose(path: Path) -> str:
    """A page's Markdown without its blocks of code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def anchors(path: Path) -> set[str]:
    """What GitHub and the site call the sections of a page; a name that comes again is numbered."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,4} (.*)$", prose(path), re.M):
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
        found.append(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return {name if not (n := found[:i].count(name)) else f"{name}-{n}" for i, name in enumerate(found)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_sections_lead_there(path: Path) -> None:
    for target, anchor in LINK.findall(prose(path)):
        page = (path.parent / target).resolve() if target else path
        if "://" not in target and page in PAGES:
            assert anchor in anchors(page), f"{path.relative_to(ROOT)}: {target}#{anchor} is no section"
