"""Exercises: the notebook shows the generated skeleton, the stored solutions pass, the skeletons do not."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError
from fusmae_lite.course import exercises

NOTEBOOKS = project_root() / "notebooks"
ALL = [
    (path.stem[1:], name)
    for path in sorted((NOTEBOOKS / "exercises").glob("e??.py"))
    for name in exercises.load(path.stem[1:])
]
EXAMPLE = '''"""Toy."""

import math


def side(area: int) -> int:
    """Side of a square of `area`."""
    # solution
    root = math.isqrt(area)
    return root
    # end


def check_side(answer):
    assert answer(225) == 15, "225 tokens lie on a grid of 15 x 15"


def helper():
    return 1
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "e09.py").write_text(EXAMPLE, encoding="utf-8")
    return tmp_path


def test_skeleton_keeps_the_task_and_drops_the_solution(folder: Path) -> None:
    assert list(exercises.load("09", folder)) == ["side"]
    assert exercises.skeleton("09", "side", folder) == (
        'def side(area: int) -> int:\n    """Side of a square of `area`."""\n    raise NotImplementedError'
    )


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("return 15", "side: solved"),
        ("return 14", "side: not yet: 225 tokens lie on a grid of 15 x 15"),
        ("raise NotImplementedError", "side: to do: replace `raise NotImplementedError` and run again"),
        ("return 1 / 0", "side: stopped with ZeroDivisionError: division by zero"),
    ],
)
def test_check_prints_one_line_and_never_raises(
    folder: Path, capsys: pytest.CaptureFixture[str], body: str, line: str
) -> None:
    space: dict = {}
    exec(f"def side(area):\n    {body}", space)
    exercises.check("09", space["side"], folder)
    assert capsys.readouterr().out == line + "\n"


def test_check_of_something_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exercises.check("09", 12, folder)
    exercises.check("08", len, folder)
    assert capsys.readouterr().out.splitlines() == [
        "12: no exercise called '12' in notebook 09; those that exist: side",
        f"len: no exercises for notebook '08' in {folder}; those that exist: 09",
    ]


def test_bad_files_are_named(folder: Path) -> None:
    with pytest.raises(InputError, match="no exercise called 'area' in notebook 09; those that exist: side"):
        exercises.skeleton("09", "area", folder)
    (folder / "e10.py").write_text("def f():\n    return 1\n\n\ndef check_f(answer):\n    pass\n", encoding="utf-8")
    with pytest.raises(InputError, match="f lacks its marks"):
        exercises.skeleton("10", "f", folder)


@pytest.mark.parametrize(("number", "name"), ALL)
def test_solution_passes_and_skeleton_does_not(number: str, name: str) -> None:
    solution, verify = exercises.load(number)[name]
    verify(solution)
    space = dict(solution.__globals__)
    exec(exercises.skeleton(number, name), space)
    with pytest.raises(NotImplementedError):
        verify(space[name])


@pytest.mark.parametrize(("number", "name"), ALL)
def test_notebook_shows_the_generated_skeleton_and_checks_it(number: str, name: str) -> None:
    paths = list(NOTEBOOKS.glob(f"{number}_*.ipynb"))
    assert len(paths) == 1, f"exercises e{number}.py belong to exactly one notebook"
    notebook = nbformat.read(paths[0], as_version=4)
    cells = [cell.source.strip() for cell in notebook.cells if cell.cell_type == "code"]
    shown = exercises.skeleton(number, name)
    assert any(cell.startswith(shown) for cell in cells), f"{paths[0].name}: the cell of {name} is not its skeleton"
    assert any(f'check("{number}", {name})' in cell for cell in cells), f"{paths[0].name}: {name} is never checked"


@pytest.mark.parametrize("number", sorted({number for number, _ in ALL}))
def test_number_of_exercises(number: str) -> None:
    assert 3 <= sum(other == number for other, _ in ALL) <= 5
