"""How the course executes one notebook: papermill's engine, plus a report for each cell and the peak memory."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError, strip_color
from tqdm import tqdm

from fusmae_lite.core.progress import duration, interactive, line

#: Seconds between two lines about a notebook that is still running, in a log.
HEARTBEAT = 60.0

#: For the kernel: draw inline even if the shell says otherwise, and do not warn about what a reader cannot mend.
KERNEL_ENVIRONMENT = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}


@dataclass(frozen=True)
class CellFailure:
    """Where and why a notebook stopped: cell number (counted from 1, of the executed notebook) and last line."""

    cell: int
    cells: int
    message: str


@dataclass(frozen=True)
class Execution:
    """One notebook's run: cells, wall seconds, the kernel's peak memory in MiB (None: unknown), failure if any."""

    cells: int
    seconds: float
    peak_memory_mib: float | None
    failure: CellFailure | None


class CellReport:
    """Tells a person which cell runs: a bar on a terminal; in a log the first line, then one a minute."""

    def __init__(self, title: str, cells: int) -> None:
        self.title, self.cells, self.cell = title, cells, 0
        self.peak: float | None = None
        self.started = time.perf_counter()
        self._stop = threading.Event()
        self._bar = None
        if interactive():
            form = "{desc}: cell {n_fmt}/{total_fmt} |{bar:24}| {elapsed}"
            self._bar = tqdm(total=cells, desc=title, leave=False, bar_format=form)
        else:
            line(f"{title}: {cells} cells ...")
            threading.Thread(target=self._beat, daemon=True).start()

    def at(self, cell: int) -> None:
        """Cell number `cell`, counted from 1, starts now."""
        self.cell = cell
        if self._bar is not None:
            self._bar.update(cell - self._bar.n)

    def close(self) -> None:
        """End the bar or the lines."""
        self._stop.set()
        if self._bar is not None:
            self._bar.close()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            line(f"{self.title}: cell {self.cell}/{self.cells}, {duration(time.perf_counter() - self.started)} so far")


class CourseClient(PapermillNotebookClient):
    """A papermill client that reports each cell, and measures the kernel before it is gone."""

    report: CellReport

    def create_kernel_manager(self) -> Any:
        """Encrypt where jupyter_client can: a kernel that talks in the clear says so on stderr, for each notebook."""
        manager = super().create_kernel_manager()
        if manager.has_trait("transport_encryption"):
            manager.transport_encryption = "auto"
        return manager

    def execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        """Report, then execute."""
        self.report.at(cell_index + 1)
        return super().execute_cell(cell, cell_index, **options)

    def papermill_execute_cells(self) -> None:
        """Execute all cells, then ask how much memory the kernel took."""
        try:
            super().papermill_execute_cells()
        finally:
            self.report.peak = peak_memory_mib(getattr(self.km.provisioner, "pid", None))


class CourseEngine(NBClientEngine):
    """papermill's engine over :class:`CourseClient`; takes the report as ``report=``."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, *, report: CellReport, **options: Any
    ) -> Any:
        """Execute the notebook that `nb_man` holds."""
        client = CourseClient(nb_man, kernel_name=kernel_name, startup_timeout=120, timeout=None)
        client.report = report
        return client.execute(env={**os.environ, **KERNEL_ENVIRONMENT})


papermill_engines.register("fusmae", CourseEngine)


def peak_memory_mib(pid: int | None) -> float | None:
    """Largest resident memory of a running process so far, in MiB; outside Linux what it has now; None if unknown."""
    if pid is None:
        return None
    try:
        for row in Path(f"/proc/{pid}/status").read_text().splitlines():
            if row.startswith("VmHWM:"):
                return round(int(row.split()[1]) / 1024, 1)
    except OSError:
        pass
    try:
        return round(psutil.Process(pid).memory_info().rss / 2**20, 1)
    except psutil.Error:
        return None


def execute(source: Path, target: Path, parameters: dict[str, Any], title: str) -> Execution:
    """Run a notebook with parameters in its own folder, as nbval and JupyterLab do, and write the result to `target`.

    `target` grows while the notebook runs, and holds the traceback after a failure. A failure is returned, not raised.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel python3 of this environment, not the user's
    notebook = nbformat.read(source, as_version=4)
    cells = len(notebook.cells) + bool(parameters)  # papermill injects one
    report = CellReport(title, cells)
    failure = None
    try:
        papermill.execute_notebook(
            _escape(source),
            _escape(target),
            parameters,
            engine_name="fusmae",
            kernel_name="python3",
            progress_bar=False,
            cwd=source.parent,
            report=report,
        )
    except KeyboardInterrupt:
        # The kernel is being stopped; nbclient's watcher may find it dead and print that as a traceback of its own.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    except PapermillExecutionError as error:
        failure = CellFailure(report.cell, cells, _last_line(error))
    except RuntimeError as error:  # nbclient's DeadKernelError among them: the kernel is gone, not the cell wrong
        hint = "the notebook's process ended, often for want of memory"
        failure = CellFailure(report.cell, cells, f"{type(error).__name__}: {error} ({hint})")
    finally:
        report.close()
    return Execution(cells, time.perf_counter() - report.started, report.peak, failure)


def _escape(path: Path) -> str:
    """papermill takes braces in a path for placeholders."""
    return str(path.resolve()).replace("{", "{{").replace("}", "}}")


def _last_line(error: PapermillExecutionError) -> str:
    """What a person wants of a traceback."""
    rows = [row for row in strip_color(str(error.evalue)).splitlines() if row.strip()]
    return f"{error.ename}: {rows[-1].strip()}" if rows else str(error.ename)
