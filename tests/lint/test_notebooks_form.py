"""Every stored notebook has the form that CONTRIBUTING.md asks for: readable, with outputs, nothing of one machine."""

from __future__ import annotations

import ast
import re
import runpy
import statistics
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from fusmae_lite.core.config import project_root
from fusmae_lite.course.parameters import declared

PATHS = sorted((project_root() / "notebooks").glob("*.ipynb"))
COMMON = ["preset", "data_dir", "run_dir", "seed"]
PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|mnt|usr|opt|var|Users)/\w|[A-Z]:\\\w")

pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]


def texts(path: Path) -> list[str]:
    """Everything a reader can read: sources, and outputs without pictures."""
    found = [cell.source for cell in read(path).cells]
    for output in (output for cell in code(path) for output in cell.outputs):
        found.append(output.get("text", ""))
        found += [str(data) for kind, data in output.get("data", {}).items() if kind.startswith("text/")]
    return found


MEASURES = runpy.run_path(str(project_root() / "docs" / "measures.py"))


def words(path: Path) -> int:
    return MEASURES["words"](prose(path))


def test_is_valid_small_and_of_kernel_python3(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert path.stat().st_size < 1_500_000, "lower the resolution of its figures"
    assert re.fullmatch(r"\d\d_[a-z_]+", path.stem)


def test_holds_nothing_of_one_machine(path: Path) -> None:
    notebook = read(path)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}, "store it with `make notebooks`"
    for cell in notebook.cells:
        assert not {"execution", "papermill", "ExecuteTime"} & set(cell.metadata), "store it with `make notebooks`"
    found = [match.group() for text in texts(path) for match in PATH.finditer(text)]
    assert not found, f"absolute paths: {found}"


def test_outputs_are_stored(path: Path) -> None:
    cells = code(path)
    assert all(cell.execution_count for cell in cells), "run `make notebooks`"
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "not executed from top to bottom"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs), "a notebook without a picture"
    assert not any("image/svg+xml" in output.get("data", {}) for output in outputs), "SVG never compares equal"


def test_parameters_cell(path: Path) -> None:
    tagged = [cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for line in tagged[0].source.strip().splitlines():
        assert re.fullmatch(r"\w+: (str|int|float|bool) = .+?  # \S.*", line), (
            f"not `name: type = literal  # help`: {line}"
        )
        ast.literal_eval(ast.parse(line).body[0].value)
    names = list(declared(path))
    assert names[: len(COMMON)] == COMMON and 'preset: str = "smoke"' in tagged[0].source


def test_cells_are_short(path: Path) -> None:
    lengths = [len(cell.source.splitlines()) for cell in code(path)]
    assert max(lengths) <= 40
    assert sum(length < 20 for length in lengths) >= 0.9 * len(lengths)
    assert 3 <= statistics.median(lengths) <= 9, f"median {statistics.median(lengths)} lines"
    imports = [len(re.findall(r"^(?:import|from) ", cell.source, flags=re.M)) for cell in code(path)]
    assert max(imports) <= 15  # a line for each module; the rooms have several


def test_prose_and_code_alternate(path: Path) -> None:
    kinds = [cell.cell_type for cell in read(path).cells]
    opening = path.stem.startswith("00")
    assert (20 if opening else 40) <= len(kinds) <= 90, f"{len(kinds)} cells"
    assert 1.0 <= kinds.count("markdown") / kinds.count("code") <= 1.8
    runs = [a == b == c == "code" for (a, b), (_, c) in pairwise(pairwise(kinds))]
    assert not any(runs), f"three code cells in a row from cell {runs.index(True) + 1}"
    assert (800 if opening else 1500) <= words(path) <= 3500, f"{words(path)} words"


def test_opens_and_closes_as_the_others(path: Path) -> None:
    texts = prose(path)
    assert read(path).cells[0].cell_type == "markdown" and texts[0].startswith("# ")
    assert "you will" in " ".join(texts[:4]).lower()
    headings = [line.lstrip("# ").lower() for text in texts for line in text.splitlines() if re.match(r"#{1,3} ", line)]
    last = headings[-4:]
    assert any("summary" in heading for heading in last), f"no summary among {last}"
    if not path.stem.startswith("00"):
        assert any("reference" in heading for heading in last), f"no references among {last}"
