"""Runs the course: checked parameters, one notebook after the other, results in a run folder, continued when it failed.

A run folder holds the executed notebooks and their HTML, ``metrics.json``, ``index.html``, ``course.json`` (what was
run on what, so that a second call continues) and whatever the notebooks themselves write. Sources are only read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
from pydantic import TypeAdapter, ValidationError

from fusmae_lite.core.config import RunConfig, project_root
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.files import read_object
from fusmae_lite.core.locks import only_job
from fusmae_lite.core.progress import duration, line
from fusmae_lite.course import pages
from fusmae_lite.course.doctor import machine
from fusmae_lite.course.engine import Execution, execute
from fusmae_lite.course.notebook import metrics_file, write_json
from fusmae_lite.course.parameters import check, declared, find_notebooks
from fusmae_lite.data.archives import Archive, open_archive, open_data
from fusmae_lite.data.identity import identity

STATE = "course.json"


@dataclass(frozen=True)
class CourseResult:
    """What a call did: the run folder, and the stems of the notebooks that it executed and skipped."""

    folder: Path
    executed: tuple[str, ...]
    skipped: tuple[str, ...]


def run_course(
    preset: str = "smoke",
    parameters: Mapping[str, Any] | None = None,
    *,
    only: Iterable[str] = (),
    run_dir: Path | str = "",
    force: bool = False,
    notebooks: Path | None = None,
) -> CourseResult:
    """Run the notebooks of the course in their order.

    A notebook is skipped if it finished before on the same source, package, parameters, pairs and predecessors.

    Args:
        parameters: name = value, as text or typed; each notebook gets those that it declares.
        only: numbers of the notebooks to run, ``["03"]``; empty: all.
        run_dir: where results go; empty: ``runs/<preset>``.
        force: run again what has finished.
        notebooks: folder of the sources; by default the project's.

    Raises:
        InputError: an unknown notebook, an unknown or ill-typed parameter, or a run folder that another job holds;
            nothing has run then.
        RunError: a notebook failed; names the cell, the exception and the executed notebook.
    """
    sources = notebooks or project_root() / "notebooks"
    every, chosen = find_notebooks(sources), find_notebooks(sources, only)
    given = {"preset": preset, **({"run_dir": str(run_dir)} if run_dir else {}), **(parameters or {})}
    types = {path.stem: declared(path) for path in every}
    config, typed = check(given, types, [path.stem for path in chosen])
    with only_job(config.folder()):
        return _run(_Course(config, every), chosen, types, typed, force)


def _run(
    run: _Course, chosen: Iterable[Path], types: Mapping[str, Any], typed: Mapping[str, dict[str, Any]], force: bool
) -> CourseResult:
    executed, skipped = [], []
    for source in chosen:
        values = typed[source.stem] | ({"run_dir": str(run.folder)} if "run_dir" in types[source.stem] else {})
        if not force and run.finished(source, values):
            line(f"{pages.short_title(source)}: finished before, skipped (--force runs it again)")
            skipped.append(source.stem)
        else:
            run.run(source, values)
            executed.append(source.stem)
    run.write_pages()
    return CourseResult(run.folder, tuple(executed), tuple(skipped))


class _Course:
    """The state of one run folder."""

    def __init__(self, config: RunConfig, every: list[Path]) -> None:
        self.config, self.every = config, every
        self.folder = folder = config.folder().resolve()
        self.package = _hash_files(Path(__file__).parents[1])
        self.pairs = [identity(archive) for archive in _archives(config)]
        self.entries: dict[str, dict[str, Any]] = {}
        if (folder / STATE).is_file():
            self.entries = _read_state(folder / STATE)

    def finished(self, source: Path, values: dict[str, Any]) -> bool:
        """True if this notebook's stored results still stand; says so if the pairs are why they do not."""
        entry = self.entries.get(source.stem, {})
        files = all((self.folder / f"{source.stem}{end}").is_file() for end in (".ipynb", ".html"))
        same = entry.get("made_from") == self._made_from(source, values) and entry.get("after") == self._after(source)
        finished = files and same and entry.get("failure") is None
        if finished and entry.get("pairs") != self.pairs:
            line(f"{pages.short_title(source)}: the pairs have changed since it ran, so it runs again")
            return False
        return finished

    def run(self, source: Path, values: dict[str, Any]) -> None:
        """Execute one notebook; a failure is stored, then raised as :class:`RunError`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        running = self.folder / f"{source.stem}.running.ipynb"
        title = pages.short_title(source)
        result = execute(source, running, values, title)
        self._store(source, values, result)
        if result.failure is not None:
            failed = running.replace(self.folder / f"{source.stem}.failed.ipynb")
            self.write_pages()
            where = f"{title} stopped in cell {result.failure.cell}/{result.failure.cells}"
            raise RunError(f"{where}: {result.failure.message}; see {failed}")
        pages.write_html(running, self.folder / f"{source.stem}.html")
        running.replace(self.folder / f"{source.stem}.ipynb")
        (self.folder / f"{source.stem}.failed.ipynb").unlink(missing_ok=True)
        memory = f", {result.peak_memory_mib:.0f} MiB" if result.peak_memory_mib else ""
        line(f"{title}: {result.cells} cells in {duration(result.seconds)}{memory}")

    def write_pages(self) -> None:
        """metrics.json and index.html, from what is there."""
        for path in self.every:
            numbers = metrics_file(self.config, path.stem[:2])
            if path.stem in self.entries and numbers.is_file():
                self.entries[path.stem]["metrics"] = read_object(numbers, "remove it, and run that notebook again")
        metrics = {
            "preset": self.config.preset,
            "configuration": self.config.model_dump(),
            "machine": machine(),
            "notebooks": {
                stem: {key: entry.get(key) for key in ("seconds", "peak_memory_mib", "cells", "failure", "metrics")}
                for stem, entry in sorted(self.entries.items())
            },
        }
        write_json(self.folder / "metrics.json", metrics)
        pages.write_index(self.folder, self.every, metrics)

    def _store(self, source: Path, values: dict[str, Any], result: Execution) -> None:
        entry = {
            "made_from": self._made_from(source, values),
            "pairs": self.pairs,
            "after": self._after(source),
            "finished": time.time(),
            **asdict(result),
            "seconds": round(result.seconds, 2),
        }
        self.entries[source.stem] = entry
        write_json(self.folder / STATE, {"preset": self.config.preset, "notebooks": self.entries})

    def _after(self, source: Path) -> dict[str, float]:
        """When each predecessor finished: a later time means that it ran again, so its artefacts may differ."""
        before = [path.stem for path in self.every if path.stem < source.stem]
        return {stem: self.entries[stem]["finished"] for stem in before if stem in self.entries}

    def _made_from(self, source: Path, values: dict[str, Any]) -> str:
        """Fingerprint of the notebook's cells (not its outputs), its parameters and the package."""
        cells = [cell.source for cell in nbformat.read(source, as_version=4).cells]
        return hashlib.sha256(json.dumps([cells, values, self.package], sort_keys=True).encode()).hexdigest()


def _read_state(path: Path) -> dict[str, dict[str, Any]]:
    """Notebook -> what is kept of its run; InputError for a file that holds anything else."""
    cure = "remove it, and every notebook runs again"
    found = read_object(path, cure).get("notebooks")
    try:
        for entry in TypeAdapter(dict[str, dict[str, Any]]).validate_python(found).values():
            TypeAdapter(Execution).validate_python({name: entry[name] for name in Execution.__dataclass_fields__})
            TypeAdapter(float).validate_python(entry["finished"])
            TypeAdapter(dict[str, Any] | None).validate_python(entry.get("metrics"))
    except (ValidationError, KeyError) as error:
        raise InputError(f"{path} is not the state of a course ({type(error).__name__})", cure) from None
    return found


def _archives(config: RunConfig) -> list[Archive]:
    """What notebooks read: the bundled pairs, and those the course runs on."""
    return [open_archive(), *([open_data(config)] if config.data_dir or config.split != "official" else [])]


def _hash_files(folder: Path) -> str:
    """Fingerprint of the package: code, presets, statistics and weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".toml", ".json", ".safetensors"):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
