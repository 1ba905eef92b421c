"""Execute notebooks in place and store their outputs: ``make notebooks``, or ``python -m fusmae_lite.course.store 03``.

The parameters stay as stored (the smoke preset). Results go to ``runs/stored``, so that no other run is touched and
notebooks 06 and 07 find what 05 left. What changes from one machine or day to the next is stripped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import RunError
from fusmae_lite.core.files import write_text
from fusmae_lite.core.progress import line
from fusmae_lite.course.cli import exit_status
from fusmae_lite.course.engine import execute
from fusmae_lite.course.notebook import RUN_DIR_VARIABLE
from fusmae_lite.course.pages import without_widgets
from fusmae_lite.course.parameters import find_notebooks

#: One thread, as in the tests: sums then have one order, and the stored numbers are those that nbval compares.
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove widget state, timings and versions from a notebook; its sources, tags and outputs stay."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    return without_widgets(notebook)


def store(source: Path) -> None:
    """Execute one notebook and replace it by the result; on failure the source stays, and RunError names the cell."""
    executed = project_root() / "runs" / "stored" / source.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    result = execute(source, executed, {})
    if result.failure:
        raise RunError(f"{source.name} {result.failure}; see {executed}; the notebook is unchanged")
    write_text(source, nbformat.writes(strip(nbformat.read(executed, as_version=4))))
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(source)], check=True)
    line(f"{source.name}: {result.summary()}, {source.stat().st_size / 1e6:.2f} MB")


def main(numbers: list[str]) -> None:
    """Store the notebooks with these numbers, or all."""
    run = project_root() / "runs" / "stored"
    os.environ.update(THREADS)
    os.environ[RUN_DIR_VARIABLE] = str(run)
    if not numbers:
        shutil.rmtree(run, ignore_errors=True)
    for source in find_notebooks(project_root() / "notebooks", numbers):
        store(source)


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:]))
