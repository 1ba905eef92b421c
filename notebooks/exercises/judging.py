"""Judges an answer of a reader beside the solution; the checks in this folder use it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


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
