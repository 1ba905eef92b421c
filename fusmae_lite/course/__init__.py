"""The course: what notebooks begin with, the runner, the exercises, and the command line."""

from importlib import import_module
from typing import Any

_WHERE = {"begin": "notebook", "record": "notebook", "check": "exercises", "quiz": "exercises"}


def __getattr__(name: str) -> Any:  # begin needs torch, which `fusmae --help` must not wait for
    if name in _WHERE:
        return getattr(import_module(f"fusmae_lite.course.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'fusmae_lite.course' has no attribute {name!r}")
