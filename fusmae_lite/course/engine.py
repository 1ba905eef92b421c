"""Executes one notebook: papermill, plus a line a minute in a log and the peak memory of the kernel."""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError, strip_color
from pydantic import BaseModel

from fusmae_lite.core.progress import duration, interactive, line
from fusmae_lite.course.parameters import escaped

#: Seconds between two lines about a notebook that is still running, in a log.
HEARTBEAT = 60.0
#: For the kernel: draw inline even if the shell says otherwise, and do not warn about what a reader cannot mend.
KERNEL_ENVIRONMENT = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}


class Execution(BaseModel):
    """One notebook's run; `failure` says where and why it stopped, the kernel's memory is None if unknown."""

    cells: int
    seconds: float
    peak_memory_mib: float | None
    failure: str | None

    def summary(self) -> str:
        """``40 cells in 12.3 s, 512 MiB``."""
        memory = f", {self.peak_memory_mib:.0f} MiB" if self.peak_memory_mib else ""
        return f"{self.cells} cells in {duration(self.seconds)}{memory}"


def short_title(notebook: Path) -> str:
    """``03 cross attention`` for ``03_cross_attention.ipynb``: for progress lines."""
    return notebook.stem.replace("_", " ")


def execute(source: Path, target: Path, parameters: dict[str, Any]) -> Execution:
    """Run a notebook with parameters in its own folder, as nbval and JupyterLab do, and write the result to `target`.

    `target` grows while the notebook runs, and holds the traceback after a failure. A failure is returned, not raised.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel python3 of this environment, not the user's
    form = "{desc}: cell {n_fmt}/{total_fmt} |{bar:24}| {elapsed}"
    reason = ""
    try:
        papermill.execute_notebook(
            escaped(source.resolve()),
            escaped(target.resolve()),
            parameters,
            engine_name="fusmae",
            kernel_name="python3",
            progress_bar={"desc": short_title(source), "leave": False, "bar_format": form} if interactive() else False,
            cwd=source.parent,
        )
    except KeyboardInterrupt:
        # The kernel is being stopped; nbclient's watcher may find it dead and print that as a traceback of its own.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    except PapermillExecutionError as error:
        reason = ": ".join([error.ename, *strip_color(str(error.evalue)).strip().splitlines()[-1:]])
    except RuntimeError as error:  # nbclient's DeadKernelError among them: the kernel is gone, not the cell wrong
        reason = f"{type(error).__name__}: {error} (the notebook's process ended, often for want of memory)"
    notebook = nbformat.read(target, as_version=4)
    cells = [cell for cell in notebook.cells if "papermill" in cell.metadata]  # without papermill's notes on a failure
    return Execution(
        cells=len(cells),
        seconds=round(notebook.metadata.papermill.duration, 2),
        peak_memory_mib=notebook.metadata.papermill.get("peak_memory_mib"),
        failure=f"stopped in cell {_started(cells)}/{len(cells)}: {reason}" if reason else None,
    )


class _Client(PapermillNotebookClient):
    def create_kernel_manager(self) -> Any:
        """Encrypt where jupyter_client can: a kernel that talks in the clear says so on stderr, for each notebook."""
        manager = super().create_kernel_manager()
        if manager.has_trait("transport_encryption"):
            manager.transport_encryption = "auto"
        return manager

    def papermill_execute_cells(self) -> None:
        """Execute all cells, then note in the notebook how much memory the kernel took."""
        ended = threading.Event()
        if not interactive():
            title = short_title(Path(self.nb.metadata.papermill.input_path))
            line(f"{title}: {len(self.nb.cells)} cells ...")
            threading.Thread(target=self._beat, args=(title, ended), daemon=True).start()
        try:
            super().papermill_execute_cells()
        finally:
            ended.set()
            self.nb.metadata.papermill.peak_memory_mib = _peak_memory_mib(getattr(self.km.provisioner, "pid", None))

    def _beat(self, title: str, ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT):
            seconds = (self.nb_man.now() - self.nb_man.start_time).total_seconds()
            cells = self.nb.cells
            line(f"{title}: cell {_started(cells)}/{len(cells)}, {duration(seconds)} so far")


class _Engine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: Any) -> Any:
        client = _Client(nb_man, kernel_name=kernel_name, startup_timeout=120, timeout=None)
        return client.execute(env={**os.environ, **KERNEL_ENVIRONMENT})


papermill_engines.register("fusmae", _Engine)


def _started(cells: list[nbformat.NotebookNode]) -> int:
    return sum(cell.metadata.papermill["start_time"] is not None for cell in cells)


def _peak_memory_mib(pid: int | None) -> float | None:
    """Largest resident memory of a running process so far; outside Linux what it has now; None if it is gone."""
    status = Path(f"/proc/{pid}/status")
    try:
        if status.is_file():
            peak = re.search(r"^VmHWM:\s*(\d+)", status.read_text(), flags=re.M)
            return round(int(peak[1]) / 1024, 1) if peak else None
        return None if pid is None else round(psutil.Process(pid).memory_info().rss / 2**20, 1)
    except (OSError, psutil.Error):
        return None
