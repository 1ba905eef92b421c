"""Run notebooks in place and store their outputs: small, described, and without what changes from day to day.

python docs/store.py [NN ...]
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat

from fusmae_lite.core.errors import RunError, exit_status
from fusmae_lite.core.files import write_text
from fusmae_lite.core.progress import line, pulse
from fusmae_lite.course.engine import execute, without_widgets
from fusmae_lite.course.notebook import RUN_DIR_VARIABLE
from fusmae_lite.course.pages import described
from fusmae_lite.course.parameters import find_notebooks
from fusmae_lite.show.panels import few_colours

ROOT = Path(__file__).resolve().parents[1]
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def store(root: Path, numbers: Iterable[str] = ()) -> None:
    """Execute notebooks in place and store their outputs, pictures in 256 colours and with words for who sees none.

    The parameters stay as stored. Results go to ``runs/stored``, where 06 and 07 find what 05 left. A notebook
    that fails stays as it was, and :class:`RunError` names the cell.
    """
    sources, run = find_notebooks(root / "notebooks", numbers), root / "runs" / "stored"
    # One thread, as in the tests: sums then have one order, and the stored numbers are those that nbval compares
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", RUN_DIR_VARIABLE: str(run)})
    if not numbers:
        shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    for source in sources:
        result = execute(source, run / source.name, {})
        if result.failure:
            raise RunError(f"{source.name} {result.failure}; see {run / source.name}; the notebook is unchanged")
        notebook = described(without_widgets(nbformat.read(run / source.name, as_version=4)))
        notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
        for cell in notebook.cells:
            kept = {key: cell.metadata[key] for key in ("cellView", "jupyter", "tags") if cell.metadata.get(key)}
            cell.metadata = nbformat.from_dict(kept)
            for data in (output.data for output in cell.get("outputs", []) if "image/png" in output.get("data", {})):
                data["image/png"] = base64.b64encode(few_colours(base64.b64decode(data["image/png"]))).decode("ascii")
        write_text(source, nbformat.writes(notebook))
        subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(source)], check=True)
        line(f"{source.name}: {result.summary()}, {source.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    with pulse("store"):
        sys.exit(exit_status(store, ROOT, sys.argv[1:]))
