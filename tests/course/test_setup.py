"""`make setup` with a pip that only talks: it says what arrives, and calls nothing ready that is not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fusmae_lite.core.config import project_root

PIP = """\
#!/bin/sh
case "$*" in *torch==*) wanted=torch;; *) wanted=course;; esac
echo "Collecting $wanted (from here)"
echo "  Downloading $wanted.whl.metadata (29 kB)"
echo "Downloading $wanted.whl (843.7 MB)"
echo "Requirement already satisfied: numpy"
echo "Installing collected packages: a, b"
exit $STATUS
"""


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize("status", [0, 1])
def test_setting_up_says_what_happens_and_how_long(tmp_path: Path, status: int) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(project_root() / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(PIP, encoding="utf-8")
    python.chmod(0o755)
    command = ["make", "-C", tmp_path, "--no-print-directory", "setup", f"STATUS={status}"]
    done = subprocess.run(command, capture_output=True, text=True)
    first, *steps = done.stdout.splitlines()
    assert "6 GB" in first and "minutes" in first
    each = ["Collecting {} (from here)", "Downloading {}.whl (843.7 MB)", "Installing collected packages"]
    wanted = [text.format("torch") for text in each]
    if status == 0:
        wanted += [text.format("course") for text in each]
        assert "source .venv/bin/activate" in steps.pop()
    assert steps == wanted
    assert (done.returncode == 0) == (status == 0) == (tmp_path / ".venv" / ".ready").exists()
