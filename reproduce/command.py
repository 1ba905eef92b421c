"""``fusmae results``: found by the command line as an entry point, because the package does not import this folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fusmae_lite.core.config import describe_fields
from fusmae_lite.course.parameters import parse


def add_results(commands: argparse._SubParsersAction, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Register the subcommand; `add` makes a parser with --preset and -p."""
    fields = f"parameters of -p, with their defaults before the preset:\n{describe_fields()}"
    parser = add(commands, "results", _results, "every table and figure of RESULTS.md, for all systems", fields)
    parser.add_argument("--sen12ms", default="", metavar="DIR", help="a SEN12MS archive (default: a synthetic one)")
    parser.add_argument("--run-dir", default="", metavar="DIR", help="instead of runs/results-<preset>/")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="instead of the plan's")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="instead of the plan's")
    parser.add_argument("--own-sizes", action="store_true", help="each system as large as in its own paper")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="trainings at a time (default: one a core)")
    parser.add_argument("--write", action="store_true", help="also fill RESULTS.md and docs/results of this checkout")


def _results(options: argparse.Namespace) -> int:
    from reproduce import load_plan, run_results

    given = parse(options.parameter)
    data_dir = str(given.pop("data_dir", ""))
    changes = {"seeds": tuple(options.seeds)} if options.seeds else {}
    if options.systems:
        changes["systems"] = tuple(options.systems)
    plan = load_plan(options.preset, own_sizes=options.own_sizes, **changes)
    if given:
        plan = replace(plan, run={**plan.run, **given})
    folder = Path(options.run_dir).expanduser() if options.run_dir else None
    report = run_results(plan, folder, data_dir, options.sen12ms, options.workers, options.write)
    print(f"open {report.folder}")
    return 0
