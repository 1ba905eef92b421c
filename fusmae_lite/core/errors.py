"""The one exception that means "your input, not our code", a line with the cure; and how a command ends for errors."""

import difflib
import errno
import os
import re
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

#: A word (a value without blanks) and a half of a message are shown up to these lengths; beyond, with their ends.
_LONGEST_WORD = 400
_LONGEST = 1000


def printable(text: object, longest: int = _LONGEST) -> str:
    """What may be shown of a text from a file: one line, no control character as such, nothing of absurd length."""
    try:
        line = re.sub(r"[\r\n\t]", " ", str(text)[: 100 * longest])
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    if not line.isprintable():  # separators of lines, formats that turn the direction of writing, half of a pair
        line = "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else f"\\x{ord(c):02x}" for c in line)
    line = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", lambda word: _ends(word[0], _LONGEST_WORD), line)
    return _ends(line, longest)


def _ends(text: str, longest: int) -> str:
    """Beginning and end of a text that is too long; the result is short enough to be left alone the next time."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]}... ({len(text)} characters) ...{text[-(longest // 5) :]}"


class InputError(ValueError):
    """Bad input. One line names the file or field, what is wrong, and how to mend it; exit status 2."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(f"{printable(what)}; {printable(cure)}")
        self.parts = what, cure

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str]]:
        """Rebuild it from the arguments of __init__ when it crosses from one process to another."""
        return type(self), self.parts

    def _render_traceback_(self) -> list[str]:
        """Show the line alone in Jupyter: the place in our code does not help to mend the input."""
        return [f"{type(self).__name__}: {self}"]


class RunError(RuntimeError):
    """A run that had to stop although its input was accepted, for example on a loss that is not finite. Status 1."""

    def __init__(self, what: str) -> None:
        super().__init__(printable(what, 2 * _LONGEST))


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a cluster sends it before it takes a machine back; status 143."""


def stop(*_: object) -> None:
    """A handler for SIGTERM that lets every ``finally`` run."""
    raise Terminated


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that the block starts leave Ctrl-C, which a terminal sends to all, to the one that started them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def choose(name: object, names: Iterable[str], words: str = "those that exist:") -> str:
    """The cure for a name that does not exist: the one that was probably meant, or all of them."""
    names = list(names)
    near = difflib.get_close_matches(str(name)[:100], names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"{words} {', '.join(names)}"


def exit_status(run: Callable[..., int | None], *arguments: object, **options: object) -> int:
    """Call a function; an error that a user can mend becomes one line on stderr."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
    try:
        status = run(*arguments, **options) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as error:
        status, word = (143, "terminated") if isinstance(error, Terminated) else (130, "interrupted")
        return _fail(status, f"{word}; the same command continues")
    except (InputError, RunError) as error:
        return _fail(2 if isinstance(error, InputError) else 1, error)
    except OSError as error:
        if error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC):  # nor may Python try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:  # the reader, as `head`, has seen enough
            return 1
        place, cure = error.filename or "the output", "free space there, or choose another place"
        cure = "allow more (ulimit -n 1024), or use fewer workers" if error.errno == errno.EMFILE else cure
        return _fail(1, RunError(f"{place}: {error.strerror or error}; {cure}"))
    except RuntimeError as error:
        if "home directory" not in str(error):  # pathlib's, for ~nobody
            raise
        return _fail(2, InputError(f"a path begins with ~ and no user of that name: {error}", "write the path out"))


def _fail(status: int, why: object) -> int:
    print(f"error: {why}", file=sys.stderr)
    return status
