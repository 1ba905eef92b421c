"""Executes notebooks: papermill, which also tells where it is and notes the peak memory of the kernel."""

import logging
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError, strip_color
from pydantic import BaseModel

from fusmae_lite.core.progress import doing, duration, interactive, line
from fusmae_lite.course.parameters import escaped

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
    metrics: dict[str, Any] | None = None  # what the notebook recorded

    def summary(self) -> str:
        """``40 cells in 12.3 s, 512 MiB``."""
        memory = f", {self.peak_memory_mib:.0f} MiB" if self.peak_memory_mib else ""
        return f"{self.cells} cells in {duration(self.seconds)}{memory}"


def short_title(notebook: Path) -> str:
    """``03 cross attention`` for ``03_cross_attention.ipynb``: for progress lines."""
    return notebook.stem.replace("_", " ")


def execute(source: Path, target: Path, parameters: dict[str, Any], place: str = "") -> Execution:
    """Run a notebook with parameters in its own folder, as JupyterLab does, and write the result to `target`.

    `place` says in progress lines which of several it is.

    `target` grows while the notebook runs, and holds the traceback after a failure. A failure is returned, not raised.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel python3 of this environment, not the user's
    reason = ""
    try:
        papermill.execute_notebook(
            escaped(source.resolve()),
            escaped(target.resolve()),
            parameters,
            engine_name="fusmae",
            kernel_name="python3",
            progress_bar={"desc": f"{short_title(source)}{place}", "leave": False} if interactive() else False,
            cwd=source.parent,
            place=place,
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
        failure=f"stopped in {_where(cells)[1]}: {reason}" if reason else None,
    )


def without_widgets(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with each viewer as its last picture: a widget without its kernel would show as an error."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data.pop("application/vnd.jupyter.widget-view+json", None)
    return notebook


class _Engine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: Any) -> Any:
        title, cells = short_title(Path(nb_man.nb.metadata.papermill.input_path)), nb_man.nb.cells

        def tell(**_: Any) -> None:
            heading, place = _where(cells)
            doing(f"{title}: {place}")
            if nb_man.pbar is not None:
                nb_man.pbar.set_description(f"{title}{options.get('place', '')}, {heading}")

        def note_memory(**_: Any) -> None:
            nb_man.nb.metadata.papermill.peak_memory_mib = _peak_memory_mib(getattr(kernel.provisioner, "pid", None))

        client = PapermillNotebookClient(nb_man, kernel_name=kernel_name, startup_timeout=120, timeout=None)
        client.on_cell_execute, client.on_cell_executed = tell, note_memory
        kernel = client.create_kernel_manager()
        if kernel.has_trait("transport_encryption"):  # in the clear, it says so on stderr for each notebook
            kernel.transport_encryption = "auto"
        if not interactive():
            line(f"{title}{options.get('place', '')}: {len(cells)} cells ...")
        # what its cells print comes back in messages; what it says of its own end concerns nobody
        return client.execute(env={**os.environ, **KERNEL_ENVIRONMENT}, stderr=subprocess.DEVNULL)


papermill_engines.register("fusmae", _Engine)


def _where(cells: list[nbformat.NotebookNode]) -> tuple[str, str]:
    """``5. Frozen features`` and ``cell 31/90, the code cell [12], under "5. Frozen features"``, as in Jupyter."""
    begun = [cell for cell in cells if cell.metadata.papermill["start_time"] is not None]
    prose = "\n".join(cell.source for cell in begun if cell.cell_type == "markdown")
    heading = (re.findall(r"^#+ (.+)$", prose, flags=re.M) or ["the beginning"])[-1]
    number = sum(cell.cell_type == "code" for cell in begun)
    return heading, f'cell {len(begun)}/{len(cells)}, the code cell [{number}], under "{heading}"'


def _peak_memory_mib(pid: int | None) -> float | None:
    """Largest resident memory of a running process so far; outside Linux what it has now; None if it is gone."""
    status = Path(f"/proc/{pid}/status")
    try:
        if status.is_file():
            peak = re.search(r"^VmHWM:\s*(\d+)", status.read_text(), flags=re.M)
            return round(int(peak[1]) / 1024, 1) if peak else None
        return round(psutil.Process(pid).memory_info().rss / 2**20, 1)
    except (OSError, psutil.Error):
        return None
