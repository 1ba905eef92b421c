"""``fusmae results``: found by the command line as an entry point, because the package does not import this folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Option, Typer

from fusmae_lite.course.cli import FIELDS, Assignments
from fusmae_lite.course.parameters import parse
from reproduce import PLANS


def add_results(commands: Typer, add: Callable[..., None]) -> None:
    """Register the subcommand; `add` makes it of a function."""
    add(commands, results, FIELDS)


def results(
    preset: Annotated[str, Option(help=f"One of {', '.join(PLANS)}.", metavar="NAME")] = "smoke",
    parameter: Assignments = (),
    sen12ms: Annotated[str, Option(help="A SEN12MS archive (default: a synthetic one).", metavar="DIR")] = "",
    run_dir: Annotated[str, Option(help="Instead of runs/results-<preset>/.", metavar="DIR")] = "",
    seeds: Annotated[list[int], Option(help="Instead of the plan's; may be repeated.")] = (),
    systems: Annotated[list[str], Option(help="Instead of the plan's; may be repeated.", metavar="NAME")] = (),
    own_sizes: Annotated[bool, Option(help="Each system as large as in its own paper.")] = False,
    workers: Annotated[int, Option(help="Trainings at a time; 0: one a core.")] = 0,
    write: Annotated[bool, Option(help="Also fill RESULTS.md and docs/results of this checkout.")] = False,
) -> None:
    """Every table and figure of RESULTS.md, for all systems."""
    from reproduce import load_plan, run_results

    given = parse(parameter)
    data_dir = given.pop("data_dir", "")
    changes = {name: tuple(chosen) for name, chosen in (("seeds", seeds), ("systems", systems)) if chosen}
    plan = load_plan(preset, own_sizes=own_sizes, **changes)
    if given:
        plan = replace(plan, run={**plan.run, **given})
    folder = Path(run_dir).expanduser() if run_dir else None
    report = run_results(plan, folder, data_dir, sen12ms, workers, write)
    print(f"open {report.folder}")
