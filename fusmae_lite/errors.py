"""The one exception that means "your input, not our code": a single line naming the thing and the cure."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input. The message is one line that names the file or field, what is wrong, and how to mend it.

    The command line prints it as ``error: ...`` and exits with status 2; notebooks show it as is.
    """

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(f"{what}; {cure}".replace("\n", " "))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str]]:
        """So that it can cross from one process to another: exceptions are rebuilt from the arguments of __init__."""
        what, _, cure = str(self).partition("; ")
        return type(self), (what, cure)

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows: the line alone, since the place in our code does not help to mend the input."""
        return [f"{type(self).__name__}: {self}"]


class RunError(RuntimeError):
    """A run that had to stop although its input was accepted, for example on a loss that is no longer finite.

    One line, like :class:`InputError`; the command line exits with status 1.
    """
