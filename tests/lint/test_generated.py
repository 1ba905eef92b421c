"""What scripts write from the stored notebooks is current: the page of their measures, the pictures of README."""

from __future__ import annotations

import runpy

from fusmae_lite.core.config import project_root

DOCS = project_root() / "docs"
COUNT = len(list((project_root() / "notebooks").glob("*.ipynb")))


def test_the_page_of_measures_is_what_the_script_writes():
    table = runpy.run_path(str(DOCS / "measures.py"))["table"]()
    assert (DOCS / "notebooks.md").read_text(encoding="utf-8") == table, "run `python docs/measures.py`"
    assert table.count("](../notebooks/") == COUNT


def test_the_pictures_of_readme_are_those_of_the_notebooks():
    pictures = runpy.run_path(str(DOCS / "gallery.py"))["gallery"]()
    assert len(pictures) == COUNT + 1, "a cell tagged `gallery` in each notebook, one tagged `hero` in one"
    old = [path.name for path, png in pictures.items() if not path.is_file() or path.read_bytes() != png]
    assert not old, f"run `python docs/gallery.py`: {old}"
