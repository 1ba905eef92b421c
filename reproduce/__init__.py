"""Every table and figure of RESULTS.md from one command: a plan, tracks that train and score, tables made of them.

Names are loaded when first used: ``fusmae --help`` finds its command here and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproduce.plan import Plan, load_plan
    from reproduce.run import run_results

PLANS = ("smoke", "laptop", "overnight", "paper")  # plans/*.toml

__all__ = ["PLANS", "Plan", "load_plan", "run_results"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("reproduce.run" if name == "run_results" else "reproduce.plan"), name)
    raise AttributeError(f"module 'reproduce' has no attribute {name!r}")
