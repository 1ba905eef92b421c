"""Progress that suits where it is shown: a bar that moves on a terminal or in a notebook, plain lines in a log."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
_SECONDS_BETWEEN_LINES = 30
_FIRST_LINE = 10  # seconds until a silent command says that it works
_now = {"doing": "", "said": 0.0}


def interactive() -> bool:
    """True where a moving bar makes sense: stderr is a terminal, or a person has the notebook open in Jupyter."""
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ


def track(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """Iterate with a tqdm bar when :func:`interactive`; silently otherwise, where callers print a :func:`line`."""
    yield from tqdm(items, desc=title, total=total, leave=False, disable=not interactive())


def followed(items: Iterable[Item], title: str | Callable[[], str], total: int, before: int = 0) -> Iterator[Item]:
    """Iterate with a bar or, where none can move, with a line now and then.

    A title may change while it goes on; `before` of the total were done in an earlier run.
    """
    started, said, say = time.monotonic(), time.monotonic(), title if callable(title) else lambda: title
    bar = tqdm(items, desc=say(), total=total, initial=before, leave=False, disable=not interactive())
    for number, item in enumerate(bar, before + 1):
        yield item
        bar.set_description(say(), refresh=False)
        if bar.disable and time.monotonic() - said > _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            rate = (number - before) / (said - started)
            line(f"{say()}: {number} of {total}, {rate:.1f} a second, {duration((total - number) / rate)} to go")


def line(text: str) -> None:
    """Print one line at once, on stdout and without disturbing a bar."""
    tqdm.write(text)
    sys.stdout.flush()
    _now["said"] = time.monotonic()


def doing(text: str) -> None:
    """Name what is under way, for :func:`pulse`."""
    _now["doing"] = f", {text}"


@contextmanager
def pulse(command: str) -> Iterator[None]:
    """While the block runs, a bar's clock goes on; without one, a line after ten silent seconds, then every thirty."""
    ended, began = threading.Event(), time.monotonic()

    def beat() -> None:
        wait = _FIRST_LINE
        while not ended.wait(1):
            bars = list(getattr(tqdm, "_instances", ())) if interactive() else []
            for bar in bars:
                bar.refresh()
            if not bars and time.monotonic() - max(began, _now["said"]) >= wait:
                with suppress(OSError, ValueError):  # the command itself tells of a full disk or a closed pipe
                    line(f"{command}{_now['doing']}: {duration(time.monotonic() - began)} so far")
                wait = _SECONDS_BETWEEN_LINES

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def duration(seconds: float) -> str:
    """A time a person can read: ``8.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
