"""The viewers as readers meet them: each in its own notebook, in JupyterLab in a real Chromium, by key and by mouse.

The cells that a viewer rests on are run and no others, so that a notebook takes some seconds. Pictures are compared
before and after. Set FUSMAE_SCREENSHOTS to a folder to keep what the browser showed.
"""

from __future__ import annotations

import ast
import base64
import builtins
import io
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
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

from fusmae_lite.core.config import project_root
from fusmae_lite.data.archives import open_archive

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
if BROWSER is None:
    pytest.skip("no Chromium here: apt-get install chromium runs the browser tests", allow_module_level=True)

pytestmark = pytest.mark.slow
#: Viewer -> its notebook, and what one of its sliders is called.
VIEWERS = {
    "PatchViewer": ("01_data", "browse"),
    "AttentionViewer": ("03_cross_attention", "row"),
    "TrainingMonitor": ("05_pretraining", "leave out first, %"),
    "ReconstructionViewer": ("06_reconstruction", "seed"),
    "SearchViewer": ("10_search_and_map", "pair"),
}
#: Of JupyterLab: local, no browser of its own, no network, steered from the page.
OPTIONS = (
    "--no-browser", "--allow-root", "--ip=127.0.0.1", "--ServerApp.port_retries=0", "--expose-app-in-browser",
    "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)  # fmt: skip
#: Extension -> its settings: cells out of sight exist, too, and no question about news covers what is clicked.
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',
    "apputils-extension/notification": '{"fetchNews": "false"}',
}
#: What the menu entry Run Selected Cell does, for one cell after the other, once the kernel is there.
RUN = """async (cells) => {
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.sessionContext.ready;
    for (const cell of cells) {
        panel.content.deselectAll();
        panel.content.activeCellIndex = cell;
        await window.jupyterapp.commands.execute("notebook:run-cell");
    }
}"""
STOP = "async () => await window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
OPEN = (
    "window.jupyterapp?.shell?.currentWidget?.context?.isReady && window.jupyterapp.shell.currentWidget.sessionContext"
)
#: Patches along a side of the pictures that are clicked: 120 pixels, P = 8.
GRID = 15
PATIENCE = 120_000  # milliseconds; a busy machine is slow to start a kernel


def needed(cells: list[nbformat.NotebookNode], viewer: str) -> list[int]:
    """Places of the code cells that define what the viewer's cell uses, what those use, and so on; its own last."""
    last = next(i for i, cell in enumerate(cells) if cell.cell_type == "code" and f"{viewer}(" in cell.source)
    chosen, missing = [last], names_of(cells[last].source)[1]
    for place in range(last - 1, -1, -1):
        if cells[place].cell_type == "code":
            defined, used = names_of(cells[place].source)
            if defined & missing:
                chosen.insert(0, place)
                missing = (missing - defined) | used
    return chosen


def names_of(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell defines, and those that it takes from elsewhere."""
    defined, used = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (defined if isinstance(node.ctx, ast.Store) else used).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).split(".")[0])
    return defined, used - defined - set(dir(builtins))


def write_metrics(folder: Path, epochs: int) -> None:
    """The metrics file of a run that has come so far."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": 6 * e, "epoch": e, "loss_s1": 1 / e, "loss_s2": 2 / e} for e in range(1, epochs + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, run_folder: Path) -> Iterator[str]:
    """Address of a JupyterLab of its own, over copies of the notebooks; {} stands for a notebook's name."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "work").mkdir()
    for notebook, _ in VIEWERS.values():
        shutil.copy(project_root() / "notebooks" / f"{notebook}.ipynb", folder / "work")
    for name, text in SETTINGS.items():
        settings = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        settings.parent.mkdir(parents=True)
        settings.write_text(text, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
    folders |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = os.environ | {name: str(folder / value) for name, value in folders.items()}
    environment |= {"FUSMAE_RUN_DIR": str(run_folder), "JUPYTER_PREFER_ENV_PATH": "1"}
    environment["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    command = [sys.executable, "-m", "jupyterlab", f"--port={port}", f"--IdentityProvider.token={token}", *OPTIONS]
    command.append(f"--ServerApp.root_dir={folder / 'work'}")
    with open(folder / "lab.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: server.poll() is not None or answers(f"{address}/api?token={token}"), "JupyterLab to start")
        assert server.poll() is None, (folder / "lab.log").read_text()
        yield f"{address}/lab/tree/{{}}.ipynb?token={token}&reset"
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
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1300})
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("FUSMAE_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def shown(request: pytest.FixtureRequest, page: Page, lab: str, screenshots: Path) -> Iterator[Locator]:
    """The viewer of this name in its notebook, which first shows its stored picture and then is run."""
    name = request.param
    notebook = VIEWERS[name][0]
    cells = nbformat.read(project_root() / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    places = needed(cells, name)
    page.goto(lab.format(notebook))
    page.wait_for_function(OPEN)
    cell = page.locator(".jp-Notebook .jp-Cell").nth(places[-1])
    cell.scroll_into_view_if_needed()
    cell.locator(".jp-OutputArea-output img").wait_for()
    assert cell.locator(".widget-vbox").count() == 0, "a kernel is not needed to see the stored picture"
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    cell.screenshot(path=screenshots / f"{name}-stored.png")
    page.evaluate(RUN, places)
    viewer = cell.locator(".widget-vbox").first
    viewer.locator("img").last.wait_for()
    viewer.scroll_into_view_if_needed()
    viewer.screenshot(path=screenshots / f"{name}-before.png")
    yield viewer
    page.evaluate(STOP)


def pixels(page: Locator) -> str:
    """The pixels of every picture below, one after the other, as the addresses that hold them."""
    return page.evaluate("(element) => [...element.querySelectorAll('img')].map((img) => img.src).join(' ')")


def transforms(viewer: Locator) -> list[str]:
    """How each panel of the ground is zoomed and shifted."""
    found = "(element) => [...element.querySelectorAll('.fusmae-ground u')].map((u) => getComputedStyle(u).transform)"
    return viewer.evaluate(found)


def words(viewer: Locator) -> str:
    """What the viewer says it shows."""
    return viewer.locator(".widget-html").last.inner_text()


def changes(page: Locator, before: str) -> bool:
    return pixels(page) != before


def one_key(page: Page, viewer: Locator, name: str) -> None:
    """Move the viewer's slider by one press of the right arrow; its picture changes and says what it shows."""
    before = pixels(viewer)
    assert words(viewer) and viewer.locator("img:not([alt])").count() == 0, "the pictures say what they show"
    handle = viewer.locator(".widget-slider", has_text=VIEWERS[name][1]).locator(".noUi-handle").first
    handle.focus()
    page.keyboard.press("ArrowRight")
    wait_until(lambda: changes(viewer, before), f"{name} to change")


def drag(page: Page, image: Locator, *patches: tuple[int, int]) -> None:
    """Move the pressed pointer over patches where they are seen."""
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    side = box["width"] / GRID
    for place, (row, column) in enumerate(patches):
        page.mouse.move(box["x"] + (column + 0.5) * side, box["y"] + (row + 0.5) * side)
        if not place:
            page.mouse.down()
    page.mouse.up()


def paint(page: Page, viewer: Locator, sensor: str, *patches: tuple[int, int]) -> set[tuple[int, int]]:
    """Drag over patches of a sensor, and give back which patches of that picture look different afterwards."""
    image = viewer.locator(f'img[data-name="{sensor}"]')
    before = image.get_attribute("src")
    drag(page, image, *patches)
    wait_until(lambda: image.get_attribute("src") != before, f"{patches} of {sensor} to change")
    one, other = decoded(before), decoded(image.get_attribute("src"))
    cells = (one != other).any(axis=2).reshape(GRID, len(one) // GRID, GRID, len(one) // GRID).any(axis=(1, 3))
    return {(int(row), int(column)) for row, column in np.argwhere(cells)}


def decoded(address: str) -> np.ndarray:
    """A data address as (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


@pytest.mark.parametrize("shown", ["PatchViewer"], indirect=True)
def test_patches_are_walked_through_by_key(page: Page, screenshots: Path, shown: Locator):
    one_key(page, shown, "PatchViewer")
    bands = open_archive().read(int(shown.locator('input[type="number"]').input_value())).bands["s1"]
    image, reading = shown.locator(".fusmae-ground img").first, shown.locator('[role="status"]').last
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    x, y = (box[edge] + (place + 0.5) * box["width"] / 120 for edge, place in (("x", 60), ("y", 30)))
    page.mouse.move(x, y)
    value = f"row 30, column 60: Sentinel-1 VV {bands['VV'][30, 60]:.3g}, "
    wait_until(lambda: value in reading.inner_text(), f"{value} at the pointer")

    shown.locator(".fusmae-page").focus()
    for _ in range(5):
        page.keyboard.press("+")
    assert len(set(transforms(shown))) == 1 and transforms(shown)[0].startswith("matrix(3.05"), "all are zoomed alike"
    page.keyboard.press("ArrowRight")
    wait_until(lambda: "row 30, column 61" in reading.inner_text(), "the arrow key to move the point")
    page.mouse.move(x + 1, y)
    wait_until(lambda: "row 30, column 60" in reading.inner_text(), "the pointer to stay where it zoomed")
    shown.screenshot(path=screenshots / "PatchViewer-after.png")
    page.mouse.down()
    page.mouse.move(x + 41, y)
    page.mouse.up()
    wait_until(lambda: "matrix(3.05" in transforms(shown)[0] and len(set(transforms(shown))) == 1, "all to move")
    page.mouse.move(x + 42, y)
    wait_until(lambda: "row 30, column 60" in reading.inner_text(), "the place to move with the pointer")
    one_key(page, shown, "PatchViewer")
    assert transforms(shown)[0].startswith("matrix(3.05"), "the next pair is shown at the same zoom"
    shown.locator(".fusmae-page").focus()
    page.keyboard.press("0")
    assert set(transforms(shown)) == {"none"}
    page.keyboard.press("+")
    image.dblclick()
    assert set(transforms(shown)) == {"none"}


@pytest.mark.parametrize("shown", ["ReconstructionViewer"], indirect=True)
def test_the_patches_painted_are_the_patches_hidden_or_shown(page: Page, screenshots: Path, shown: Locator):
    one_key(page, shown, "ReconstructionViewer")
    before = pixels(shown)
    shown.locator(".widget-dropdown", has_text="sensors").locator("select").select_option("S2 hidden but one patch")
    wait_until(lambda: changes(shown, before), "the picture to change")
    wait_until(lambda: "Sentinel-2: the encoder sees 1 of 225 patches" in words(shown), "the words to follow")
    stroke = {(9, 4), (9, 5), (10, 5)}
    assert paint(page, shown, "s2", (14, 14)) == {(14, 14)} and paint(page, shown, "s2", *sorted(stroke)) == stroke
    wait_until(lambda: "Sentinel-2: the encoder sees 5 of 225" in words(shown), "the words to follow")
    assert shown.locator('[role="status"]').count() == 2, "the message and what is read at the pointer"
    shown.screenshot(path=screenshots / "ReconstructionViewer-after.png")


@pytest.mark.parametrize("shown", ["AttentionViewer"], indirect=True)
def test_the_patch_clicked_is_the_patch_that_asks(page: Page, screenshots: Path, shown: Locator):
    one_key(page, shown, "AttentionViewer")
    before = pixels(shown)
    for sensor, title, row, column in (("s1", "Sentinel-1", 0, 0), ("s2", "Sentinel-2", 14, 14), ("s2", "", 9, 4)):
        drag(page, shown.locator(f'img[data-name="{sensor}"]'), (row, column))
        asks = f"The patch in row {row}, column {column} of {title or 'Sentinel-2'} looks at"
        wait_until(lambda asks=asks: asks in words(shown), "the words to follow")
    assert changes(shown, before)
    shown.screenshot(path=screenshots / "AttentionViewer-after.png")


@pytest.mark.parametrize("shown", ["SearchViewer"], indirect=True)
def test_the_dot_clicked_is_the_pair_that_searches(page: Page, screenshots: Path, shown: Locator):
    one_key(page, shown, "SearchViewer")
    before = pixels(shown)
    box = shown.locator('img[data-name="map"]').bounding_box()
    page.mouse.click(box["x"] + 0.05 * box["width"], box["y"] + 0.05 * box["height"])
    wait_until(lambda: changes(shown, before), "the pairs found to change")
    clicked = words(shown)
    assert clicked.startswith("S1 of pair ") and "finds in S2, its own tile may be found: 1: pair " in clicked
    shown.locator(".widget-dropdown", has_text="search").locator("select").select_option("S2 finds S2")
    wait_until(lambda: words(shown).startswith("S2 of pair "), "the words to follow")
    shown.screenshot(path=screenshots / "SearchViewer-after.png")


@pytest.fixture
def started(run_folder: Path) -> Path:
    """A run of twenty epochs where notebook 05 looks for its own."""
    write_metrics(run_folder / "pretrain", 20)
    return run_folder / "pretrain"


@pytest.mark.parametrize("shown", ["TrainingMonitor"], indirect=True)
def test_a_run_is_followed_while_it_goes_on(started: Path, page: Page, screenshots: Path, shown: Locator):
    one_key(page, shown, "TrainingMonitor")
    before = pixels(shown)
    write_metrics(started, 30)
    shown.get_by_role("button", name="Read again").click()
    wait_until(lambda: changes(shown, before), "the picture to grow")
    wait_until(lambda: words(shown).startswith("Epoch 30, step 180"), "the words to follow")
    shown.screenshot(path=screenshots / "TrainingMonitor-after.png")
