"""The whole course at the smoke preset through the console command, chained through its artefacts.

On an archive that is as unlike the bundled pairs as a small one can be: reBEN's layout, ten pairs without sea, no test
split. The bundled pairs themselves go through every notebook in test_nbval.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from small_archives import make_reben

from fusmae_lite.core.config import project_root
from fusmae_lite.data.archives import Archive

#: Bundled pairs on land: seven for training, three for validation.
INLAND = (1, 4, 5, 7, 8, 9, 19, 6, 10, 11)
PATHS = sorted((project_root() / "notebooks").glob("*.ipynb"))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PATHS, reason="no notebooks in this checkout")]


def command(run_dir: Path) -> subprocess.CompletedProcess[str]:
    """`fusmae course` as a reader would call it, from another folder."""
    arguments = [sys.executable, "-m", "fusmae_lite.course.cli", "course", "--preset", "smoke", "--run-dir", run_dir]
    arguments += ["-p", f"data_dir={run_dir.parent / 'archive'}"]
    return subprocess.run(arguments, cwd=run_dir.parent, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, archive: Archive) -> Path:
    """A finished smoke run; asserts that it ended well and left the sources as they were."""
    folder = tmp_path_factory.mktemp("course") / "run"
    labels = archive.labels[list(INLAND)]
    assert not labels[:, archive.classes.index("Marine waters")].any()
    make_reben(folder.parent / "archive", archive, INLAND)
    before = {path: path.read_bytes() for path in PATHS}
    done = command(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("cells in") == len(PATHS)
    assert {path: path.read_bytes() for path in PATHS} == before
    return folder


def metrics(run: Path) -> dict[str, dict]:
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))["notebooks"]


def test_leaves_notebooks_pages_and_numbers(run: Path) -> None:
    page = (run / "index.html").read_text(encoding="utf-8")
    for path in PATHS:
        executed = nbformat.read(run / path.name, as_version=4)
        assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
        assert (run / f"{path.stem}.html").stat().st_size > 10_000
        assert f'href="{path.stem}.html"' in page
        assert metrics(run)[path.stem]["failure"] is None and metrics(run)[path.stem]["seconds"] > 0
    assert page.count("data:image/webp") >= len(PATHS)


def test_is_chained_through_the_checkpoint(run: Path) -> None:
    numbers = {stem[:2]: entry["metrics"] or {} for stem, entry in metrics(run).items()}
    if not {"05", "06", "07"} <= set(numbers):
        pytest.skip("needs notebooks 05 to 07")
    checkpoint = numbers["05"]["checkpoint"]
    assert checkpoint.startswith("step-") and (run / "pretrain" / "checkpoints" / checkpoint).is_dir()
    assert numbers["06"]["checkpoint"] == numbers["07"]["checkpoint"] == checkpoint


def test_second_call_has_nothing_to_do(run: Path) -> None:
    done = command(run)
    assert done.returncode == 0 and done.stdout.count("skipped (--force runs it again)") == len(PATHS)
