"""Stored outputs are those of a fresh run: compared cell by cell where no machine matters, run through elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from fusmae_lite.core.config import project_root

#: Notebook -> cells with text that must at least be compared: strict mode passes a notebook stripped of its outputs.
STRICT = {"01": 10, "02": 10, "03": 10, "04": 10}
PATHS = sorted((project_root() / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.slow
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
#: Notebooks draw inline, whatever the tests or the shell chose for themselves.
ENVIRONMENT["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run folder for all, in order: 06 and 07 find what 05 left."""
    return tmp_path_factory.mktemp("run")


def compared(path: Path) -> int:
    """Cells whose stored text nbval compares: printed or shown, not tagged away, more than a figure's name."""
    count = 0
    for cell in nbformat.read(path, as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" or {"nbval-ignore-output", "nbval-skip"} & set(tags):
            continue
        texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
        count += any(text.strip() and not text.startswith("<Figure") for text in texts)
    return count


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook(path: Path, run_dir: Path) -> None:
    strict = path.stem[:2] in STRICT
    if strict:
        minimum = STRICT[path.stem[:2]]
        assert compared(path) >= minimum, f"{compared(path)} of at least {minimum} cells hold text to compare"
    command = [sys.executable, "-m", "pytest", "--nbval" if strict else "--nbval-lax", "--nbval-current-env"]
    command += ["--nbval-cell-timeout=600", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", str(path)]
    done = subprocess.run(
        command,
        cwd=project_root(),
        env={**os.environ, **ENVIRONMENT, "FUSMAE_RUN_DIR": str(run_dir)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    cells = sum(cell.cell_type == "code" for cell in nbformat.read(path, as_version=4).cells)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed.group(1)) == cells, done.stdout[-500:]
