"""The course: what notebooks begin with, the runner, the exercises, and the command line."""

from typing import Any


def __getattr__(name: str) -> Any:  # begin needs torch, which `fusmae --help` must not wait for
    if name in ("begin", "record"):
        from fusmae_lite.course import notebook

        return getattr(notebook, name)
    if name == "check":
        from fusmae_lite.course.exercises import check

        return check
    raise AttributeError(f"module 'fusmae_lite.course' has no attribute {name!r}")
