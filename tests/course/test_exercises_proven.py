"""Every checker of an exercise accepts what is right, however written, and refuses what is wrong, with a hint."""

from __future__ import annotations

import inspect
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusmae_lite.course import exercises

sys.path.insert(0, str(Path(__file__).parent))
import variants_first
import variants_later
import variants_search
from mutants import mutants

READERS = variants_first, variants_later, variants_search
RIGHT, WRONG = ({k: v for some in READERS for k, v in getattr(some, of).items()} for of in ("RIGHT", "WRONG"))
NUMBERS = [f"{number:02d}" for number in range(1, 11)]
ALL = {name: pair for number in NUMBERS for name, pair in exercises.load(number).items()}
#: Changes that change no result, by the line they leave: another sign under a square, a last axis that is axis 1,
#: a choice among changes of hidden pixels, a constant that cancels, an order that nobody asked for.
SAME = {
    "return float(10 * np.log10(np.mean(10 ** (np.asarray(db) / 10))))",
    "return np.divide(infrared - red, total, where=total != 0)",  # what is left out holds whatever memory held
    "return np.divide(infrared - red, total, out=total, where=total != 0)",
    "power = np.asarray(power)",
    "order = torch.rand(batch, tokens, generator=generator).argsort()",
    "grid = images.shape[-2] // patch_size",
    "changed = torch.where(hidden, images - 1, images)",
    "changed = torch.where(hidden, images + 2, images)",
    "changed = torch.where(hidden, 1, images)",
    "return not torch.equal(encode(changed, mask), encode(images, mask))",
    "scores = q @ k.T / q.shape[1] ** 0.5",
    "return scores.softmax(dim=1) @ v",
    "weight = {key: float(rows[:, part].sum(dim=1).sum()) for key, part in slices.items() if key != 'cls'}",
    "weight = {key: float(rows[:, part].sum().mean()) for key, part in slices.items() if key != 'cls'}",
    "error = (target - prediction).square().mean(dim=-1)",
    "return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (warmup - total)))",
    "return peak * 0.5 * (1 + math.cos(math.pi * (warmup - step) / (total - warmup)))",
    "return sum((mean * size / total for mean, size in zip(sizes, means, strict=True)))",
    "return sum((mean * size / total for mean, size in zip(means, sizes)))",
    "return sum((mean * size / total for mean, size in zip(means, sizes, strict=False)))",
    "return np.sqrt(np.square(target - prediction).mean(axis=(0, 2, 3))) * std",
    "count = max(round(patches * fraction), 1)",
    "return np.random.default_rng(seed).choice(patches, count, replace=False)",
    "return [name for name, row in table.items() if abs(row['accuracy'] - row['recall']) > 0]",
    "return [name for name, row in table.items() if abs(row['recall'] - row['accuracy']) > 0.05]",
    # where the first guess lies does not matter: one patch at a time brings it to the total
    "counts = np.clip(1, np.floor(np.asarray(shares) * total).astype(int), tokens)",
    "counts = np.clip((np.asarray(shares) * total).astype(int), 1, tokens)",
    "counts = np.clip(np.ceil(np.asarray(shares) * total).astype(int), 1, tokens)",
    "counts = np.clip(np.floor(np.asarray(shares) / total).astype(int), 1, tokens)",
    "counts = np.clip(np.floor(np.asarray(shares)).astype(int), 1, tokens)",
    "products = (a[:, :, None] * b[:, None, :]).reshape(len(a), -2)",
    "return np.argsort(-similar)[:, :k]",
    "ranks = [np.argsort(np.argsort(-similar, axis=1)) + 1 for similar in similarities]",
    "ranks = [np.argsort(np.argsort(-similar), axis=1) + 1 for similar in similarities]",
}


class Slow(BaseException):
    """A mutant that does not end; the reader sees that."""


def verdict(check: Callable[..., None], answer: Callable[..., Any], seconds: float = 2.0) -> str:
    """What a reader is told of an answer: "" if it is accepted."""

    def stop(*_: object) -> None:
        raise Slow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            check(answer)
    except Slow:
        return "slow"
    except Exception as error:  # a reader's code may raise anything
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return ""


def bent(solution: Callable[..., Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The right result spoilt afterwards, or of arguments in another order."""

    def after(change: Callable[[Any], Any]) -> Callable[..., Any]:
        def answer(*args: Any) -> Any:
            result = solution(*args)
            if isinstance(result, dict):
                return {key: change(value) for key, value in result.items()}
            return tuple(map(change, result)) if isinstance(result, tuple) else change(result)

        return answer

    yield "None", lambda *args: None
    yield "plus one", after(lambda x: x + 1 if not isinstance(x, (str, list, bool)) else None)
    yield "negative", after(lambda x: -1 - x if not isinstance(x, (str, list, bool)) else None)
    yield "first of the batch for all", after(lambda x: 0 * x + x[:1] if len(x) > 1 else None)
    yield "a row too few", after(lambda x: x[:-1])
    if len(inspect.signature(solution).parameters) > 1:
        yield "arguments in reverse", lambda *args: solution(*args[::-1])


def test_every_exercise_has_answers_of_readers() -> None:
    assert set(RIGHT) == set(WRONG) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_right_answers_are_accepted_however_written(name: str) -> None:
    solution, check = ALL[name]
    assert len(RIGHT[name]) >= 3
    for answer in (solution, *RIGHT[name]):
        assert verdict(check, answer, 60) == "", f"{name}: refused {answer}"


@pytest.mark.parametrize("name", ALL)
def test_a_slip_that_can_be_recognised_is_named(name: str) -> None:
    assert len(WRONG[name]) >= 5
    for words, answer in WRONG[name].items():
        told = verdict(ALL[name][1], answer)
        assert words in told, f"{name}: told {told!r}, not {words!r}"


@pytest.mark.slow
def test_mutants_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    refused, survivors = 0, []
    for name, (solution, check) in ALL.items():
        tried, _ = {}, verdict(check, solution, 60)
        for source, answer in (*mutants(solution), *bent(solution)):
            if told := verdict(check, answer, 0.5):
                tried[source] = told != "slow"
            elif not any(line.strip() in SAME for line in source.splitlines()):
                survivors.append(f"{name}: {source}")
        count = sum(tried.values()) + len(WRONG[name])
        assert count >= 10, f"{name}: only {count} wrong answers tried"
        refused += sum(tried.values())
    rate = refused / (refused + len(survivors))
    with capsys.disabled():
        print(f"\n{refused} of {refused + len(survivors)} mutants refused ({rate:.1%}), {len(ALL)} exercises")
    assert rate >= 0.95, "\n\n".join(survivors)
