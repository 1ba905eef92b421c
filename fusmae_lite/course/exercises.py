"""Exercises of the notebooks: written once as solutions, generated as skeletons, checked where the reader solves them.

``notebooks/exercises/e02.py`` holds the exercises of notebook 02. A solution is a function whose docstring is the task
and whose body has the part to be found between the lines ``# solution`` and ``# end``; ``check_<name>(answer)`` beside
it raises an AssertionError that says what is wrong. The notebook shows :func:`skeleton` and calls :func:`check`.
Questions with a choice of answers are kept sealed in ``quiz.json`` there; :func:`quiz` opens none, it compares.
"""

import hashlib
import inspect
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import read_object

TODO = "raise NotImplementedError"
SOLUTION = re.compile(r"# solution\n.*?# end", re.S)


def load(number: str, folder: Path | None = None) -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """Name -> solution and check of each exercise of notebook `number` (``"02"``), read afresh at each call."""
    folder = folder or project_root() / "notebooks" / "exercises"
    path = folder / f"e{number}.py"
    if not path.is_file():
        numbers = ", ".join(sorted(file.stem[1:] for file in folder.glob("e??.py"))) or "none"
        raise InputError(f"no exercises for notebook {number!r} in {folder}", f"those that exist: {numbers}")
    if str(folder) not in sys.path:  # for `judging` beside the exercises
        sys.path.append(str(folder))
    functions = runpy.run_path(str(path))
    return {name: (functions[name], functions[f"check_{name}"]) for name in functions if f"check_{name}" in functions}


def skeleton(number: str, name: str, folder: Path | None = None) -> str:
    """Source of an exercise as the reader gets it: the solution replaced by ``raise NotImplementedError``."""
    text, marked = SOLUTION.subn(TODO, inspect.getsource(_exercise(number, name, folder)[0]), count=1)
    if not marked:
        raise InputError(f"e{number}.py: {name} lacks its marks", "put '# solution' and '# end' around the solution")
    return text.rstrip()


def check(number: str, answer: Callable[..., Any], folder: Path | None = None) -> None:
    """Print one line on whether the reader's `answer` solves the exercise of its name. Never raises."""
    name, verdict = getattr(answer, "__name__", repr(answer)), "solved"
    try:
        _exercise(number, name, folder)[1](answer)
    except NotImplementedError:
        verdict = f"to do: replace `{TODO}` and run again"
    except InputError as error:
        verdict = str(error)
    except Exception as error:  # whatever the reader's code does, the notebook goes on
        reason = str(error).strip().split("\n")[0]
        verdict = f"stopped with {type(error).__name__}: {reason}"
        if isinstance(error, AssertionError):
            verdict = f"not yet: {reason or 'the result differs'}"
    print(f"{name}: {verdict}")


def _exercise(number: str, name: str, folder: Path | None) -> tuple[Callable[..., Any], Callable[..., Any]]:
    exercises = load(number, folder)
    if name not in exercises:
        names = ", ".join(exercises)
        raise InputError(f"no exercise called {name!r} in notebook {number}", f"those that exist: {names}")
    return exercises[name]


def seal(number: str, question: str, letter: str) -> str:
    """What ``quiz.json`` keeps of the right `letter`: enough to compare with, not to read."""
    salt = f"{number}.{question}".encode()
    return hashlib.pbkdf2_hmac("sha256", letter.strip().lower().encode(), salt, 50_000).hex()[:24]


def quiz(number: str, **letters: str) -> None:
    """Print one line for each answer to the questions that end notebook `number`, as in ``quiz("02", q1="b")``."""
    sealed = read_object(project_root() / "notebooks" / "exercises" / "quiz.json", "restore it from git")[number]
    for question, letter in letters.items():
        if question not in sealed:
            raise InputError(f"notebook {number} has no question {question!r}", f"it has {', '.join(sealed)}")
        digest, where = sealed[question]
        verdict = "right" if seal(number, question, letter) == digest else f"no; read {where} again"
        print(f"{question}: {verdict if letter.strip('? ') else 'to do: a, b, c or d in place of ?'}")
