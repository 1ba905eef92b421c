"""Exercises of the notebooks: written once as solutions, generated as skeletons, checked where the reader solves them.

``notebooks/exercises/e02.py`` holds the exercises of notebook 02. A solution is a function whose docstring is the task
and whose body has the part to be found between the lines ``# solution`` and ``# end``; ``check_<name>(answer)`` beside
it raises an AssertionError that says what is wrong. The notebook shows :func:`skeleton` and calls :func:`check`.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError

TODO = "raise NotImplementedError"
SOLUTION = re.compile(r"# solution\n.*?# end", re.S)


def load(number: str, folder: Path | None = None) -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """Name -> solution and check of each exercise of notebook `number` (``"02"``), read afresh at each call."""
    folder = folder or project_root() / "notebooks" / "exercises"
    path = folder / f"e{number}.py"
    if not path.is_file():
        numbers = ", ".join(sorted(file.stem[1:] for file in folder.glob("e??.py"))) or "none"
        raise InputError(f"no exercises for notebook {number!r} in {folder}", f"those that exist: {numbers}")
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
        verdict = f"to do: replace `{TODO}` and run both cells again"
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


def compare(
    answer: Callable[..., Any],
    right: Callable[..., Any],
    cases: Sequence[tuple[Any, ...]],
    slips: dict[str, Callable[..., Any]] | None = None,
) -> None:
    """AssertionError if `answer` differs from `right` for the arguments of one of `cases`, or changes them.

    `slips` maps a hint to a function that makes the mistake; the hint is told if `answer` errs as that one does.
    """
    given = copy.deepcopy(cases)
    pairs = [(answer(*case), right(*case)) for case in given]
    assert _same(given, cases), "the arguments that were passed in have changed: work on a copy"
    if wrong := next((pair for pair in pairs if not _same(*pair)), None):
        for hint, slip in (slips or {}).items():
            with contextlib.suppress(TypeError, ValueError, IndexError, RuntimeError, ArithmeticError):
                assert not all(_same(got, slip(*case)) for (got, _), case in zip(pairs, cases, strict=True)), hint
        raise AssertionError(_difference(*wrong))


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach() if hasattr(value, "detach") else value)


def _same(got: Any, wanted: Any) -> bool:
    """Whether two results agree to four digits, whatever holds them: numbers, arrays, tensors, lists, dicts."""
    if isinstance(wanted, dict):
        return isinstance(got, dict) and set(got) == set(wanted) and all(_same(got[key], wanted[key]) for key in wanted)
    if isinstance(wanted, (tuple, list)):
        return hasattr(got, "__len__") and len(got) == len(wanted) and all(map(_same, got, wanted))
    one, other = _array(got), _array(wanted)
    if one.dtype.kind not in "biuf" or other.dtype.kind not in "biuf":
        return got is wanted or (one.shape == other.shape and bool(np.all(one == other)))
    scale = float(np.abs(other.astype(float)).max(initial=0))
    return one.shape == other.shape and np.allclose(one.astype(float), other.astype(float), 1e-4, 1e-5 * scale + 1e-9)


def _difference(got: Any, wanted: Any) -> str:
    """What is wrong with a result, in one line."""
    if got is None:
        return "the function returns nothing"
    one, other = _array(got) if not isinstance(got, dict) else got, _array(wanted)
    if isinstance(wanted, (dict, list, tuple)) or one.dtype.kind not in "biuf":
        return f"got {got}, expected {wanted}".replace("\n", " ")
    if _same(one.T, other):
        return "the result is transposed"
    if one.shape != other.shape:
        return f"a result of shape {one.shape}, wanted {other.shape}"
    if not np.isfinite(one).all():
        return "the result holds NaN or infinity"
    one, other = one.astype(float), other.astype(float)
    if one.any() and other.any() and other.size > 1:
        factor = float((one * other).sum() / (other**2).sum())
        if _same(one, factor * other):
            return f"off by the factor {factor:.4g} everywhere"
        if _same(np.sort(one, axis=None), np.sort(other, axis=None)):
            return "the right values, in another order"
    worst = np.abs(one - other).argmax()
    return f"got {one.flat[worst]:.5g}, expected {other.flat[worst]:.5g}"
