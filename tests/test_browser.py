"""The viewers as readers use them: JupyterLab in a real Chromium, by keyboard and by mouse.

A small notebook shows every viewer; the test runs all its cells, moves a slider with an arrow key, clicks a patch,
and compares pictures before and after. Set FUSMAE_SCREENSHOTS to a folder to keep what it saw.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
if BROWSER is None:
    pytest.skip("no Chromium here: apt-get install chromium runs the browser tests", allow_module_level=True)

#: Cell of the notebook -> the viewer it ends with. Small models where a model runs: this tests the browser's side.
SETUP = """\
from fusmae_lite import FusMAE, ModelConfig, viewers
small = ModelConfig(width=16, depth=2, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=2, patch_size=24)
model = FusMAE(small)"""
CELLS = {
    "Reconstruction": "viewers.ReconstructionViewer(models=[model], pair=5)",
    "Mask": "viewers.MaskViewer(config=small, pair=5)",
    "Patch": "viewers.PatchViewer(pair=5)",
    "Attention": "viewers.AttentionViewer(model=model, pair=5)",
    "Training": 'viewers.TrainingMonitor("metrics.jsonl")',
}
#: Viewer -> what a reader's slider is called.
SLIDERS = {
    "Reconstruction": "seed",
    "Mask": "seed",
    "Patch": "pair",
    "Attention": "row",
    "Training": "leave out first, %",
}
#: Of JupyterLab: local, no browser of its own, no network, steered from the page.
OPTIONS = (
    "--no-browser", "--allow-root", "--ip=127.0.0.1", "--ServerApp.port_retries=0", "--expose-app-in-browser",
    "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)  # fmt: skip
#: What the menu entry Run All Cells does, once the kernel is there.
RUN_ALL = """async () => {
    await window.jupyterapp.shell.currentWidget.sessionContext.ready;
    await window.jupyterapp.commands.execute("notebook:run-all-cells");
}"""
PATIENCE = 120_000  # milliseconds; a busy machine is slow to start a kernel


def write_notebook(folder: Path) -> None:
    """play.ipynb, one cell a viewer, and a metrics file for it."""
    cells = [nbformat.v4.new_code_cell(source) for source in (SETUP, *CELLS.values())]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "play.ipynb")
    rows = [{"step": 6 * e, "epoch": e, "loss_s1": 1 / e, "loss_s2": 2 / e} for e in range(1, 21)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the notebook in a JupyterLab of its own."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "work").mkdir()
    write_notebook(folder / "work")
    tracker = folder / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text('{"windowingMode": "none"}', encoding="utf-8")  # cells out of sight exist, too
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    settings = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
    settings |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = os.environ | {name: str(folder / value) for name, value in settings.items()}
    command = [sys.executable, "-m", "jupyterlab", f"--port={port}", f"--IdentityProvider.token={token}", *OPTIONS]
    command.append(f"--ServerApp.root_dir={folder / 'work'}")
    with open(folder / "lab.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: server.poll() is not None or answers(f"{address}/api?token={token}"), "JupyterLab to start")
        assert server.poll() is None, (folder / "lab.log").read_text()
        yield f"{address}/lab/tree/play.ipynb?token={token}&reset"
    finally:
        server.terminate()
        server.wait(timeout=30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Ask again until it is so; fail after PATIENCE."""
    end = time.monotonic() + PATIENCE / 1000
    while not ready():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def page(lab: str) -> Iterator[Page]:
    """The notebook, opened and run from top to bottom."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1500})
        page.set_default_timeout(PATIENCE)
        page.goto(lab)
        page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext")
        page.evaluate(RUN_ALL)
        page.wait_for_function(
            f"document.querySelectorAll('.jp-OutputArea-output .widget-vbox').length >= {len(CELLS)}"
        )
        yield page
        browser.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("FUSMAE_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def viewer_of(page: Page, name: str) -> Locator:
    """The outermost box of a viewer."""
    viewer = page.locator(".jp-OutputArea-output .widget-vbox").nth(list(CELLS).index(name))
    viewer.scroll_into_view_if_needed()
    return viewer


def picture(viewer: Locator) -> tuple[Locator, str]:
    """The viewer's picture, its last img, and the pixels it shows now, in the browser's own words."""
    image = viewer.locator("img").last
    return image, pixels(image)


def pixels(image: Locator) -> str:
    """A data address of what is drawn; the address in src is new with every update, even of equal pixels."""
    return image.evaluate(
        """async (img) => { await img.decode(); const c = document.createElement('canvas');
        c.width = img.naturalWidth; c.height = img.naturalHeight; c.getContext('2d').drawImage(img, 0, 0);
        return c.toDataURL(); }"""
    )


def changes(image: Locator, before: str) -> bool:
    try:
        return pixels(image) != before
    except Exception:  # the picture is being replaced while we look
        return False


@pytest.mark.parametrize("name", CELLS)
def test_an_arrow_key_on_a_slider_changes_the_picture(page: Page, screenshots: Path, name: str):
    viewer = viewer_of(page, name)
    image, before = picture(viewer)
    assert image.get_attribute("title"), "the picture says what it shows"
    viewer.screenshot(path=screenshots / f"{name}-before.png")
    handle = viewer.locator(".widget-slider", has_text=SLIDERS[name]).locator(".noUi-handle").first
    handle.focus()
    page.keyboard.press("ArrowRight")
    wait_until(lambda: changes(image, before), f"{name} to change")
    viewer.screenshot(path=screenshots / f"{name}-key.png")


@pytest.mark.parametrize("name", ["Mask", "Attention"])
def test_a_click_on_a_patch_changes_the_picture(page: Page, screenshots: Path, name: str):
    viewer = viewer_of(page, name)
    image, before = picture(viewer)
    said = image.get_attribute("title")
    viewer.get_by_title("Sentinel-2, row 3, column 1", exact=True).click()
    wait_until(lambda: changes(image, before), f"{name} to change")
    assert image.get_attribute("title") != said
    viewer.screenshot(path=screenshots / f"{name}-click.png")
