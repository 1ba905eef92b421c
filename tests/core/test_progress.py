"""Where no bar can move, lines say how far a loop is, from where an earlier run had left it."""

from __future__ import annotations

import re

import pytest

from fusmae_lite.core import progress


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "interactive", lambda: False)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1)


def test_a_line_counts_from_the_start(capsys):
    assert list(progress.followed("abc", "letters", 3)) == ["a", "b", "c"]
    first, *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"letters: 1 of 3, [\d.]+ a second, .+ to go", first)
    assert last.startswith("letters: 3 of 3, ") and last.endswith(", 0.0 s to go")


def test_what_was_done_before_counts_and_a_title_may_change(capsys):
    done = []
    for item in progress.followed("de", lambda: f"letters, last {done[-1] if done else 'none'}", 5, before=3):
        done.append(item)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" of")[0] for line in lines] == ["letters, last d: 4", "letters, last e: 5"]
