"""Every table and figure of RESULTS.md from one command: a plan, tracks that train and score, tables made of them."""

from reproduce.plan import Plan, load_plan
from reproduce.run import run_results

__all__ = ["Plan", "load_plan", "run_results"]
