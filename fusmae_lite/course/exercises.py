"""Exercises of the notebooks: written once as solutions, generated as skeletons, checked where the reader solves them.

``notebooks/exercises/e02.py`` holds the exercises of notebook 02. A solution is a function whose docstring is the task
and whose body has the part to be found between the lines ``# solution`` and ``# end``; ``check_<name>(answer)`` beside
it raises an AssertionError that says what is wrong. The notebook shows :func:`skeleton` and calls :func:`check`.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError

START, END = "# solution", "# end"
TODO = "raise NotImplementedError"


def exercise_file(number: str, folder: Path | None = None) -> Path:
    """Path of the exercises of notebook `number` (``"02"``); raises :class:`InputError` where there is none."""
    folder = folder or project_root() / "notebooks" / "exercises"
    path = folder / f"e{number}.py"
    if not path.is_file():
        there = ", ".join(sorted(file.stem[1:] for file in folder.glob("e??.py"))) or "none"
        raise InputError(f"no exercises for notebook {number!r} in {folder}", f"those that exist: {there}")
    return path


def names(number: str, folder: Path | None = None) -> list[str]:
    """Names of the exercises of a notebook, in the order of the file: every function that has a check beside it."""
    functions = _functions(exercise_file(number, folder).read_text(encoding="utf-8"))
    return [name for name in functions if f"check_{name}" in functions]


def load(number: str, folder: Path | None = None) -> ModuleType:
    """The exercise file as a module, read afresh at each call."""
    path = exercise_file(number, folder)
    spec = importlib.util.spec_from_file_location(f"exercises_e{number}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def skeleton(number: str, name: str, folder: Path | None = None) -> str:
    """Source of an exercise as the reader gets it: the solution replaced by ``raise NotImplementedError``.

    Raises:
        InputError: no exercise of that name, or its ``# solution`` and ``# end`` lines are missing.
    """
    path = exercise_file(number, folder)
    source = path.read_text(encoding="utf-8")
    functions = _functions(source)
    if name not in functions or f"check_{name}" not in functions:
        raise InputError(
            f"{path.name} has no exercise {name!r}", f"those that exist: {', '.join(names(number, folder))}"
        )
    node = functions[name]
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno + 1]  # one more: the end mark may trail the body
    marks = [line.strip() for line in lines]
    if START not in marks or END not in marks:
        raise InputError(f"{path.name}: {name} lacks its marks", f"put {START!r} and {END!r} lines around the solution")
    first, last = marks.index(START), marks.index(END)
    indent = lines[first][: lines[first].index("#")]
    return "\n".join([*lines[:first], indent + TODO, *lines[last + 1 : node.end_lineno - node.lineno + 1]]).rstrip()


def check(number: str, answer: Callable[..., Any], folder: Path | None = None) -> None:
    """Print one line on whether `answer` solves the exercise of its name. Never raises: a notebook runs through.

    Args:
        number: the notebook, ``"02"``.
        answer: the reader's function; its name selects the exercise.
    """
    name = getattr(answer, "__name__", repr(answer))
    try:
        verify(number, answer, folder)
    except NotImplementedError:
        verdict = f"to do: replace `{TODO}` and run both cells again"
    except AssertionError as error:
        verdict = f"not yet: {_first_line(error) or 'the result differs'}"
    except InputError as error:
        verdict = str(error)
    except Exception as error:  # whatever the reader's code does, the notebook goes on
        verdict = f"stopped with {type(error).__name__}: {_first_line(error)}"
    else:
        verdict = "solved"
    print(f"{name}: {verdict}")


def verify(number: str, answer: Callable[..., Any], folder: Path | None = None) -> None:
    """Like :func:`check`, but raises what the check raises. For tests."""
    module = load(number, folder)
    name = getattr(answer, "__name__", repr(answer))
    test = getattr(module, f"check_{name}", None)
    if test is None:
        there = ", ".join(names(number, folder))
        raise InputError(f"no exercise called {name!r} in notebook {number}", f"those that exist: {there}")
    test(answer)


def _functions(source: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
