"""Runs the course: checked parameters, one notebook after the other, results in a run folder, continued when it failed.

A run folder holds the executed notebooks and their HTML, ``metrics.json``, ``index.html``, ``course.json`` (what was
run on what, so that a second call continues) and whatever the notebooks themselves write. Sources are only read.
"""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat
from pydantic import BaseModel

from fusmae_lite.core.config import RunConfig, project_root
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.files import read_object, write_text
from fusmae_lite.core.locks import only_job
from fusmae_lite.core.progress import doing, line
from fusmae_lite.course import pages
from fusmae_lite.course.doctor import machine
from fusmae_lite.course.engine import Execution, execute, short_title
from fusmae_lite.course.notebook import metrics_file, write_json
from fusmae_lite.course.parameters import check, declared, find_notebooks
from fusmae_lite.data.archives import open_archive, open_data
from fusmae_lite.data.identity import digest, identity, package

#: Number of a notebook -> those whose results it reads.
NEEDS = {"06": ("05",), "07": ("05",), "08": ("05",)}


class Entry(Execution):
    """What course.json keeps of a notebook's run: its result, what it was made from, and when it finished."""

    made_from: str
    pairs: Any = None
    finished: float


class State(BaseModel):
    notebooks: dict[str, Entry]


def run_course(
    preset: str = "smoke",
    parameters: Mapping[str, Any] | None = None,
    *,
    only: Iterable[str] = (),
    run_dir: Path | str = "",
    force: bool = False,
    keep_going: bool = False,
    notebooks: Path | None = None,
) -> "Course":
    """Run the notebooks of the course, or those with the numbers in `only`, in their order.

    One that finished before on the same source, package, parameters, pairs and predecessors is skipped, unless `force`.
    Each gets the parameters that it declares, as text or typed. Results go to `run_dir`, else to ``runs/<preset>``.
    Raises :class:`InputError` before anything runs, :class:`RunError` if a notebook fails: at once or, with
    `keep_going`, after the others that do not need it.
    """
    sources = notebooks or project_root() / "notebooks"
    every, chosen = find_notebooks(sources), find_notebooks(sources, only)
    values = {"preset": preset, **({"run_dir": str(run_dir)} if run_dir else {}), **(parameters or {})}
    types = {path.stem: declared(path) for path in every}
    config, typed = check(values, types, [path.stem for path in chosen])
    with only_job(config.folder()):
        course = Course(config, every)
        for place, source in enumerate(chosen, 1):
            if "run_dir" in types[source.stem]:
                typed[source.stem]["run_dir"] = str(course.folder)
            try:
                course.step(source, typed[source.stem], f" ({place} of {len(chosen)})", force)
            except RunError as error:
                if not keep_going:
                    raise
                course.failed[source.stem[:2]] = str(error)
                line(str(error))
        course.write_pages()
        if course.failed:
            raise RunError(f"{len(course.failed)} of {len(chosen)} notebooks: {'; '.join(course.failed.values())}")
    return course


class Course:
    """One run folder. `executed` and `skipped` are the stems of this call, `failed` says by number why one did not."""

    def __init__(self, config: RunConfig, every: list[Path]) -> None:
        self.config, self.every = config, every
        self.folder = config.folder().resolve()
        self.executed: tuple[str, ...] = ()
        self.skipped: tuple[str, ...] = ()
        self.failed: dict[str, str] = {}
        self.package = package()
        own = [open_data(config)] if config.data_dir or config.split != "official" else []
        self.pairs = [identity(archive) for archive in (open_archive(), *own)]  # notebooks read the bundled ones too
        self.state, self.entries = self.folder / "course.json", {}
        if self.state.is_file():
            try:
                self.entries = State.model_validate_json(self.state.read_bytes()).notebooks
            except (OSError, ValueError) as error:
                what = f"{self.state} is not the state of a course ({type(error).__name__})"
                raise InputError(what, "remove it, and every notebook runs again") from None

    def basis(self, source: Path, values: dict[str, Any]) -> dict[str, Any]:
        """What a result depends on: cells, parameters, package and when each predecessor finished; and the pairs."""
        cells = [cell.source for cell in nbformat.read(source, as_version=4).cells]
        stems = {path.stem for path in self.every if path.stem < source.stem}
        before = {stem: entry.finished for stem, entry in self.entries.items() if stem in stems}
        text = json.dumps([cells, values, self.package, before], sort_keys=True)
        return {"made_from": digest(text.encode()), "pairs": self.pairs}

    def finished(self, source: Path, values: dict[str, Any]) -> bool:
        """True if this notebook's stored results still stand; says so if the pairs are why they do not."""
        entry = self.entries.get(source.stem)
        files = all((self.folder / f"{source.stem}{end}").is_file() for end in (".ipynb", ".html"))
        if entry is None or entry.failure or not files:
            return False
        changed = [name for name, value in self.basis(source, values).items() if getattr(entry, name) != value]
        if changed == ["pairs"]:
            line(f"{short_title(source)}: the pairs have changed since it ran, so it runs again")
        return not changed

    def step(self, source: Path, values: dict[str, Any], place: str, force: bool) -> None:
        """Run one notebook unless it finished before; :class:`RunError` if it fails or needs one that has."""
        if needed := [number for number in NEEDS.get(source.stem[:2], ()) if number in self.failed]:
            raise RunError(f"{short_title(source)} was not run: it needs {', '.join(needed)}")
        if force or not self.finished(source, values):
            self.run(source, values, place)
        else:
            line(f"{short_title(source)}: finished before, skipped (--force runs it again)")
            self.skipped += (source.stem,)

    def run(self, source: Path, values: dict[str, Any], place: str) -> None:
        """Execute one notebook; a failure is stored, then raised as :class:`RunError`."""
        executed, failed, page = (self.folder / f"{source.stem}{end}" for end in (".ipynb", ".failed.ipynb", ".html"))
        running, basis = executed.with_suffix(".running.ipynb"), self.basis(source, values)
        result = execute(source, running, values, place)
        if not result.failure:
            doing(f"{short_title(source)}: its page")
            pages.write_html(running, page)
            failed.unlink(missing_ok=True)
        running.replace(failed if result.failure else executed)
        self.store(source, result, basis)
        if result.failure:
            self.write_pages()
            raise RunError(f"{short_title(source)} {result.failure}; see {failed}")
        self.executed += (source.stem,)
        line(f"{short_title(source)}: {result.summary()}")

    def store(self, source: Path, result: Execution, basis: dict[str, Any]) -> None:
        """Keep a result in course.json."""
        self.entries[source.stem] = Entry(**result.model_dump(), **basis, finished=time.time())
        write_text(self.state, State(notebooks=self.entries).model_dump_json(indent=2))

    def write_pages(self) -> None:
        """metrics.json and index.html, from what is in the folder."""
        for stem, entry in self.entries.items():
            numbers = metrics_file(self.config, stem[:2])
            if numbers.is_file():
                entry.metrics = read_object(numbers, "remove it, and run that notebook again")
        metrics = {
            "preset": self.config.preset,
            "configuration": self.config.model_dump(),
            "machine": machine(),
            "notebooks": {
                stem: entry.model_dump(include=set(Execution.model_fields))
                for stem, entry in sorted(self.entries.items())
            },
        }
        write_json(self.folder / "metrics.json", metrics)
        pages.write_index(self.folder, self.every, metrics)
