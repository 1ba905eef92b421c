"""Colab and Binder: the notebooks' first lines, the links and the requirements are what docs/launch.py writes.

Colab is played by a shell of its name and a local clone; pip resolves the clone without installing it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError

ROOT = project_root()
pytestmark = pytest.mark.slow
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SHELL = """\
from IPython.core.interactiveshell import InteractiveShell

class Shell(InteractiveShell):
    pass
"""
RUN = """\
import sys
from google.colab._shell import Shell
shell = Shell.instance()
shell.run_cell(open(sys.argv[1]).read()).raise_error()
import fusmae_lite
print(fusmae_lite.__file__)
"""
#: What a plain `pip install` reads from the environment: prepare the clone, fetch and install nothing. (pip reads the
#: last one upside down: 0 turns isolation off.)
PIP = {"PIP_DRY_RUN": "1", "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}


def load_launch():
    spec = importlib.util.spec_from_file_location("launch", ROOT / "docs" / "launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


launch = load_launch()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_fetches_the_course_on_colab(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    stored = nbformat.writes(notebook)
    launch.prepare(notebook, path.stem, [other.stem for other in NOTEBOOKS], launch.repository(ROOT))
    assert nbformat.writes(notebook) == stored, "run `python docs/launch.py`"
    assert notebook.cells[1].source.startswith(launch.ON_COLAB), "nothing is imported earlier"
    assert notebook.cells[1].metadata == launch.HIDDEN, "the cell for Colab is folded"
    neighbours = [other.name for other in NOTEBOOKS if abs(NOTEBOOKS.index(other) - NOTEBOOKS.index(path)) == 1]
    for cell in (notebook.cells[0], notebook.cells[-1]):
        assert all(f"]({name})" in cell.source for name in neighbours), "previous and next"


def test_lines_of_another_address_are_replaced_and_nothing_else() -> None:
    cells = [nbformat.v4.new_markdown_cell("# One"), nbformat.v4.new_code_cell(launch.colab_lines("") + "\nimport os")]
    notebook = nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_markdown_cell("End")])
    texts = []
    for address in ("", "https://github.com/owner/name", "https://example.org/owner/name", ""):
        launch.prepare(notebook, "01_one", ["00_zero", "01_one"], address)
        texts.append([cell.source for cell in notebook.cells])
    assert texts[0] == texts[3] and len(texts[0]) == 4 and texts[0][2] == "import os"
    assert "owner/name" not in "".join(texts[0]) and "owner/name course" not in texts[0][1]
    assert "clone -q --depth 1 ${FUSMAE_REPOSITORY:-https://github.com/owner/name} course" in texts[1][1]
    for text in (texts[1][0], texts[1][3]):
        assert "[← 00 zero](00_zero.ipynb)" in text and text.count("owner/name") == 2
    assert "Colab" not in texts[2][0]


def play_colab(folder: Path, address: str | None) -> subprocess.CompletedProcess[str]:
    """Run the import lines of a notebook as on Colab, in an empty folder."""
    (folder / "fake" / "google" / "colab").mkdir(parents=True)
    (folder / "fake" / "google" / "colab" / "_shell.py").write_text(SHELL, encoding="utf-8")
    (folder / "cell.py").write_text(launch.colab_lines(""), encoding="utf-8")
    (folder / "content").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "FUSMAE_REPOSITORY"}
    environment |= PIP | {"PYTHONPATH": str(folder / "fake"), "IPYTHONDIR": str(folder / "ipython")}
    if address is not None:
        environment["FUSMAE_REPOSITORY"] = address
    command = [sys.executable, "-c", RUN, str(folder / "cell.py")]
    return subprocess.run(command, env=environment, cwd=folder / "content", capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git repository to clone")
def test_on_colab_the_clone_is_fetched_resolved_and_imported(tmp_path: Path) -> None:
    done = play_colab(tmp_path, str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(done.stdout.splitlines()[-1]).resolve().is_relative_to(tmp_path / "content" / "course")


def test_without_an_address_colab_says_what_to_set(tmp_path: Path) -> None:
    done = play_colab(tmp_path, None)
    assert done.returncode != 0
    assert "FUSMAE_REPOSITORY: set it to the address" in done.stderr
    assert not (tmp_path / "content" / "course").exists()


def test_elsewhere_the_lines_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = set(sys.path)
    exec(launch.colab_lines(""), {"get_ipython": lambda: "<ipykernel.zmqshell.ZMQInteractiveShell>"})
    assert not list(tmp_path.iterdir()) and set(sys.path) == known


def test_binder_gets_every_dependency_at_its_pinned_version() -> None:
    text = (ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8")
    assert text == launch.requirements(ROOT), "run `python docs/launch.py`"
    wanted = [Requirement(line) for line in text.splitlines() if re.match(r"[a-z]", line)]
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.M))
    assert len(wanted) > 20
    assert {r.name: str(r.specifier) for r in wanted} == {r.name: f"=={pins[r.name]}" for r in wanted}
    assert os.access(ROOT / ".binder" / "postBuild", os.X_OK)


def test_links_are_those_of_the_written_address() -> None:
    text = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")
    names = [path.stem for path in NOTEBOOKS]
    assert launch.links(launch.repository(ROOT), names) in text, "run `python docs/launch.py`"
    table = launch.links("https://github.com/owner/name", names)
    assert table.count("colab.research.google.com/github/owner/name/blob/HEAD/notebooks/") == len(names)
    assert "http" not in launch.links("", names) and "http" not in launch.links("https://example.org/x/y", names)


@pytest.mark.parametrize("text", ["github.com/owner/name", "https://github.com/a b", "x; rm -r course"])
def test_a_bad_address_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / ".binder").mkdir()
    (tmp_path / ".binder" / "repository.txt").write_text(text + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"repository\.txt") as caught:
        launch.repository(tmp_path)
    assert "\n" not in str(caught.value)
