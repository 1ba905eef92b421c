"""The page of the notebooks' measures is current."""

from __future__ import annotations

import runpy

from fusmae_lite.core.config import project_root


def test_the_page_is_what_the_script_writes():
    root = project_root()
    table = runpy.run_path(str(root / "docs" / "measures.py"))["table"]()
    assert (root / "docs" / "notebooks.md").read_text(encoding="utf-8") == table, "run `python docs/measures.py`"
    assert table.count("[0") == len(list((root / "notebooks").glob("*.ipynb")))
