"""The website of `make site`: built once, then read as a browser without network would, and in one.

Links, anchors and pictures are followed in the HTML; a Chromium opens every page from disk. `FUSMAE_SCREENSHOTS` keeps
what it saw.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import torch

from fusmae_lite import PairDataset, load_pretrained, open_archive
from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.course.pages import write_html, write_index
from fusmae_lite.model.masking import random_mask
from fusmae_lite.model.tokens import unpatchify
from fusmae_lite.train.heldout import METHODS, WIDTHS, Hidden, Interpolation

ROOT = project_root()
pytestmark = pytest.mark.slow
BUILD = ROOT / "docs" / "site" / "build.py"
NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline")
if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    pytest.skip(f"{', '.join(missing)} not installed: pip install -e '.[site]'", allow_module_level=True)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: What a browser loads by itself, tag -> attribute.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "embed": "src"}
#: What axe looks at, and what of its findings may not be.
AXE, SERIOUS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], {"serious", "critical"}
LOSSES = {"loss_s1": 2.1, "interpolation_s1": 0.25, "mean_s1": 1.76}
STYLES = {"stylesheet", "preload", "icon", "modulepreload"}


@dataclass
class Page(HTMLParser):
    """Links, anchors and loaded files of one page of the site."""

    path: Path
    links: list[str] = field(default_factory=list)
    sidebar: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    loaded: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)  # address -> words

    def __post_init__(self) -> None:
        super().__init__()
        self.in_sidebar = 0
        self.text = self.path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "nav" and "bd-links" in (values.get("class") or ""):
            self.in_sidebar += 1
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
            if self.in_sidebar:
                self.sidebar.append(values["href"])
        if tag == "link" and STYLES & set((values.get("rel") or "").split()):
            self.loaded.append(values.get("href") or "")
        if tag == "img":
            self.pictures[values["src"]] = values.get("alt") or ""
        if values.get(LOADED.get(tag, "-")):
            self.loaded.append(values[LOADED[tag]])

    def handle_endtag(self, tag: str) -> None:
        self.in_sidebar -= tag == "nav" and self.in_sidebar > 0

    def target(self, link: str) -> tuple[Path, str]:
        """File and anchor that a link of this page leads to."""
        parts = urlsplit(link)
        path = self.path.parent / unquote(parts.path) if parts.path else self.path
        return Path(os.path.normpath(path)), unquote(parts.fragment)


@dataclass
class Site:
    folder: Path

    @cached_property
    def pages(self) -> dict[Path, Page]:
        return {path: Page(path) for path in sorted(self.folder.rglob("*.html"))}


def run_build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BUILD), "--root", str(root), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site of this repository, freshly built."""
    out = tmp_path_factory.mktemp("site")
    done = run_build(ROOT, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(str(out / "html" / "index.html"))
    return Site(out / "html")


def internal(link: str) -> bool:
    return not re.match(r"(?:[a-z]+:|//)", link, flags=re.I)


def test_every_link_anchor_and_loaded_file_exists(site: Site) -> None:
    broken = []
    for page in site.pages.values():
        for link in filter(internal, page.links + page.loaded):
            path, anchor = page.target(link)
            there = path.is_file() and path.is_relative_to(site.folder)
            if not there or (anchor and path in site.pages and anchor not in site.pages[path].anchors):
                broken.append(f"{page.path.relative_to(site.folder)}: {link}")
    assert not broken, broken[:20]
    assert sum(len(page.links) for page in site.pages.values()) > 1000, "the parser sees links"


def test_nothing_is_loaded_from_the_network(site: Site) -> None:
    loaded = [(page.path.name, file) for page in site.pages.values() for file in page.loaded]
    outside = [(name, file) for name, file in loaded if not internal(file) and not file.startswith("data:")]
    assert not outside, outside[:10]
    assert len(loaded) > 100, "the parser sees what is loaded"
    for style in site.folder.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import )\s*['\"]?(?:https?:)?//[^)\s]+", style.read_text(encoding="utf-8"))
        assert not found, f"{style.name}: {found}"


def test_every_page_of_the_repository_is_in_every_sidebar(site: Site) -> None:
    wanted = {site.folder / "notebooks" / f"{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    wanted |= {site.folder / "docs" / f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    wanted |= {site.folder / f"{path.stem}.html" for path in ROOT.glob("*.md") if path.name != "README.md"}
    assert len(wanted) >= 12
    for page in site.pages.values():
        listed = {page.target(link)[0] for link in page.sidebar}
        assert wanted <= listed, f"{page.path.name} lacks {sorted(path.name for path in wanted - listed)}"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_shows_its_stored_pictures(site: Site, path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    pictures = [o for cell in cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    page = site.pages[site.folder / "notebooks" / f"{path.stem}.html"]
    shown = [file for file in page.loaded if "_images/" in file]
    assert len(shown) >= len(pictures) > 0
    assert "Loading widget" not in page.text and "widget-view+json" not in page.text


def test_every_picture_has_words(site: Site) -> None:
    for page in site.pages.values():
        bad = {src: alt for src, alt in page.pictures.items() if len(alt) < 15 or Path(src).name in alt}
        assert not bad, f"{page.path.name}: {bad}"
    assert sum(len(page.pictures) for page in site.pages.values()) > 60


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """A Chromium; tests that want one are skipped where there is none."""
    if BROWSER is None:
        pytest.skip("no Chromium here: apt-get install chromium runs the browser tests")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser) -> Iterator[object]:
    """A tab that notes every error and every request beyond the disk in `page.complaints`."""
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.complaints = []
    page.on("console", lambda said: said.type == "error" and page.complaints.append(said.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("requestfailed", lambda request: page.complaints.append(f"failed {request.url}"))
    outside = re.compile(r"^(?:https?|wss?):").match
    page.on("request", lambda request: outside(request.url) and page.complaints.append(f"asked {request.url}"))
    yield page
    page.close()


def test_every_page_shows_its_pictures_and_formulas_and_fits_the_window(site: Site, page) -> None:
    with_math = 0
    for path, parsed in site.pages.items():
        page.goto(path.as_uri(), wait_until="load")
        name = str(path.relative_to(site.folder))
        blank = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)"
        assert page.evaluate(blank) == [], name
        unlinked = "[...document.querySelectorAll('.bd-article img')].filter(i => !i.closest('a')).map(i => i.src)"
        assert page.evaluate(unlinked) == [], f"{name}: a figure leads to its full size"
        if "math notranslate" in parsed.text:
            with_math += 1
            page.evaluate("MathJax.startup.promise")
            assert page.locator("mjx-container svg").count() > 0, name
            assert page.locator("[data-mml-node=merror]").count() == 0, name
            text = page.locator(".bd-article").inner_text()
            assert not re.search(r"\\\(|\\\[|\$\$|\\frac|\\mathbf", text), f"{name}: formulas left as text"
        for width in (400, 1300):
            page.set_viewport_size({"width": width, "height": 1000})
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} is {wide} px wide"
            if (folder := os.environ.get("FUSMAE_SCREENSHOTS")) and not name.startswith("source"):
                page.screenshot(path=Path(folder) / f"site-{path.stem}-{width}.png")
        assert page.complaints == [], name
    assert with_math >= 7, "notebooks 01 to 07 have formulas"


def test_search_finds_words_without_a_server(site: Site, page) -> None:
    page.goto(f"{(site.folder / 'search.html').as_uri()}?q=speckle")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").evaluate_all("links => links.map(link => link.href)")
    assert any("01_data.html" in link for link in found), found
    assert page.complaints == []


def npm():
    """The module that fetches packages of the npm registry."""
    sys.path.insert(0, str(BUILD.parent))
    try:
        return importlib.import_module("npm")
    finally:
        sys.path.remove(str(BUILD.parent))


@pytest.fixture
def playground_page(site: Site) -> Path:
    path = site.folder / "docs" / "playground.html"
    if reason := re.search(r"built without it: (.*?)</em>", site.pages[path].text, re.S):
        pytest.skip(f"the site has no playground: {reason[1]}")
    return path


@pytest.fixture
def playground(playground_page: Path, page) -> object:
    """The page of the playground, once it has shown a reconstruction."""
    page.goto(playground_page.as_uri())
    page.evaluate("playground.ready")
    return page


#: Arrays of the page as base64 of their float32 values: what it computes for masks, and the pair's pixels.
PACK = """const pack = (values) => {
    const bytes = new Uint8Array(Float32Array.from(values).buffer);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
};"""
COMPUTE = f"""async (hidden) => {{ {PACK}
    const masks = Object.fromEntries(Object.entries(hidden).map(([name, mask]) => [name, Uint8Array.from(mask)]));
    const answer = await playground.compute(playground.state().pair, masks);
    for (const found of Object.values(answer))
        for (const key of ["model", "interpolation", "attention"]) found[key] = pack(found[key]);
    return answer;
}}"""
PIXELS = f"() => {{ {PACK} return Object.entries(playground.state().pair).map(([name, x]) => [name, pack(x)]); }}"


def unpacked(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.float32) if text else torch.empty(0)


def test_the_playground_computes_what_pytorch_computes(playground) -> None:
    facts = playground.evaluate("playground.state().facts")
    model, names = load_pretrained(facts["weights"]).eval(), ("s1", "s2")
    pair = PairDataset(open_archive(), indices=[facts["pairs"][0]["row"]])[0]["images"]
    patches = {name: unpacked(x).view(1, 225, -1) for name, x in playground.evaluate(PIXELS)}
    images = {name: unpatchify(x, facts["side"], x.shape[-1] // facts["side"] ** 2) for name, x in patches.items()}
    for name in names:
        assert (images[name][0] - pair[name]).abs().max() <= facts["step"] / 2 + 1e-6
    widths = {sensor["name"]: sensor["width"] for sensor in facts["sensors"]}
    rng = torch.Generator().manual_seed(0)
    for kept in ((56, 56), (1, 224), (200, 1), (30, 225)):
        masks = {name: random_mask(1, 225, count, rng) for name, count in zip(names, kept, strict=True)}
        found = playground.evaluate(COMPUTE, {name: mask[0].int().tolist() for name, mask in masks.items()})
        with torch.no_grad():
            result, maps = model(images, masks), model.attention_maps(images, masks)["cross"]
        hidden = Hidden(images, masks, facts["side"])
        for name in names:
            kernel = Interpolation(METHODS["kernel"][WIDTHS.index(widths[name])], smooth=True)
            surface = kernel.predict(hidden, name)
            shown = masks[name][0]  # visible patches are shown as they are
            for got, wanted in (
                (unpacked(found[name]["model"]), result.patches[name].flatten()),
                (unpacked(found[name]["attention"]), maps[name].flatten()),
                (unpacked(found[name]["interpolation"]).view(225, -1)[shown], surface[0][shown]),
            ):
                torch.testing.assert_close(got, wanted.float(), rtol=0, atol=1e-4)
            if shown.any():
                assert found[name]["error"]["model"] == pytest.approx(result.losses[name].item(), abs=1e-4)
                wanted = kernel.errors(hidden, name).item()
                assert found[name]["error"]["interpolation"] == pytest.approx(wanted, abs=1e-4)
    assert playground.complaints == []


def masked(page, sensor: str) -> set[int]:
    """Patches of a sensor that are hidden on the page."""
    return {i for i, value in enumerate(page.evaluate(f"[...playground.state().hidden.{sensor}]")) if value}


def point(page, sensor: str, row: float, column: float) -> tuple[float, float]:
    """The middle of a patch on the screen."""
    canvas = page.locator(f"canvas[data-sensor={sensor}][data-pane=painted]")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    return box["x"] + (column + 0.5) / 15 * box["width"], box["y"] + (row + 0.5) / 15 * box["height"]


def settled(page, sensor: str, change: Callable[[], object]) -> str:
    """What the page says of a sensor's error, once a change of the masks has been computed."""
    place = page.locator(f".error[data-sensor={sensor}]")
    before = place.inner_text()
    change()
    page.wait_for_function("([at, old]) => document.querySelector(at).textContent !== old",
                           arg=[f".error[data-sensor={sensor}]", before])  # fmt: skip
    return place.inner_text()


def test_the_playground_is_painted_by_mouse_and_by_key(playground) -> None:
    page, before = playground, masked(playground, "s2")
    assert len(before) == 169

    def stroke() -> None:
        page.mouse.move(*point(page, "s2", 2, 1))
        page.mouse.down()
        page.mouse.move(*point(page, "s2", 2, 6), steps=12)
        page.mouse.up()

    hides = 31 not in before
    said = settled(page, "s2", stroke)
    row = set(range(31, 37))
    assert masked(page, "s2") == (before | row if hides else before - row), "a stroke hides, or shows, a row of patches"
    assert f"Over {len(masked(page, 's2'))} hidden patches the model's error is 0." in said

    before = masked(page, "s1")
    page.locator("canvas[data-sensor=s1][data-pane=painted]").focus()
    for key in ("ArrowRight", "ArrowDown"):  # from the middle, row 7, column 7
        page.keyboard.press(key)
    settled(page, "s1", lambda: page.keyboard.press("Space"))
    assert masked(page, "s1") ^ before == {8 * 15 + 8}
    if 8 * 15 + 8 in masked(page, "s1"):
        settled(page, "s1", lambda: page.keyboard.press("Space"))
    page.keyboard.press("Enter")
    words = page.locator("canvas[data-sensor=s2][data-pane=attention]").get_attribute("aria-label")
    assert words.startswith("Where Sentinel-1's row 8, column 8 looks: most at row "), words
    page.wait_for_function("document.querySelector('#playground [role=status]').textContent.includes('looks')")

    said = settled(page, "s2", lambda: page.locator("[data-alone=s2]").click())
    assert len(masked(page, "s2")) == 224 and said.startswith("Over 224 hidden")
    last = next(iter(set(range(225)) - masked(page, "s2")))
    page.mouse.click(*point(page, "s2", last // 15, last % 15))
    page.wait_for_function("document.querySelector('#playground [role=status]').textContent.includes('last visible')")
    assert len(masked(page, "s2")) == 224

    old = settled(page, "s1", lambda: page.locator("[name=pair]").select_option("3"))
    new = settled(page, "s1", lambda: page.locator("[name=share]").fill("0"))
    assert old != new and new == "Nothing is hidden, so there is nothing to reconstruct."
    assert page.complaints == []


def test_the_playground_on_a_phone_and_from_a_server(site: Site, playground_page: Path, browser) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site.folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    try:
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{server.server_port}/docs/playground.html")
        page.evaluate("playground.ready")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        before = masked(page, "s1")
        settled(page, "s1", lambda: page.touchscreen.tap(*point(page, "s1", 4, 9)))
        assert masked(page, "s1") ^ before == {4 * 15 + 9}
        assert all(re.match(rf"(?:blob:)?http://127\.0\.0\.1:{server.server_port}/|data:", url) for url in asked), asked
    finally:
        context.close()
        server.shutdown()


def test_without_webassembly_the_picture_stands_still_and_says_so(playground_page: Path, page) -> None:
    page.add_init_script("Object.defineProperty(window, 'WebAssembly', {value: undefined})")
    page.goto(playground_page.as_uri())
    page.evaluate("playground.ready")
    assert "has no WebAssembly" in page.locator("#playground [role=status]").inner_text()
    assert page.locator(".bd-article img").first.is_visible() and page.locator("canvas").count() == 0
    assert page.complaints == []


def test_axe_finds_nothing_serious(site: Site, page, tmp_path: Path) -> None:
    try:
        axe = npm().read("axe-core", "axe.min.js").decode()
    except RunError as error:
        pytest.skip(str(error))
    names = (
        "index",
        "docs/playground",
        "docs/glossary",
        "RESULTS",
        "notebooks/00_start_here",
        "notebooks/03_cross_attention",
    )
    paths = [site.folder / f"{name}.html" for name in names]
    notebook = ROOT / "notebooks" / "05_pretraining.ipynb"
    write_html(notebook, tmp_path / "05_pretraining.html")
    shutil.copy(notebook, tmp_path)
    entry = {"cells": 1, "seconds": 1.0, "peak_memory_mib": None, "failure": None, "metrics": LOSSES}
    metrics = {"preset": "smoke", "machine": {"summary": "a machine"}, "notebooks": {notebook.stem: entry}}
    write_index(tmp_path, [notebook], metrics)
    bad = []
    for path in (*paths, tmp_path / "05_pretraining.html", tmp_path / "index.html"):
        page.goto(path.as_uri(), wait_until="load")
        page.evaluate("window.playground?.ready")
        page.evaluate(axe)
        found = page.evaluate(f"axe.run(document, {{preload: false, resultTypes: ['violations'], runOnly: {AXE}}})")[
            "violations"
        ]
        bad += [(path.name, each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in SERIOUS]
    assert not bad, bad
    assert page.complaints == []


def small_repository(folder: Path, readme: str, notebook: str | None = None) -> Path:
    """A repository of one page and one notebook."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "README.md").write_text(readme, encoding="utf-8")
    cells = [nbformat.v4.new_markdown_cell("# One\n\n## A place"), nbformat.v4.new_markdown_cell("[to](#nowhere)")]
    text = nbformat.writes(nbformat.v4.new_notebook(cells=cells)) if notebook is None else notebook
    (folder / "notebooks" / "00_one.ipynb").write_text(text, encoding="utf-8")
    return folder


BAD = {
    "link": ("# Title\n\n`code`\n\nA [link](missing.md).\n", None, "README.md, line 5: missing.md does not exist"),
    "picture": ('# Title\n\n<img src="none.png">\n', None, "README.md, line 3: none.png does not exist"),
    "notebook": ("# Title\n", "{", "notebooks/00_one.ipynb is no notebook"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_page_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.syspath_prepend(str(BUILD.parent))
    from build import lay_out

    readme, notebook, said = BAD[name]
    root = small_repository(tmp_path / "repository", readme, notebook)
    with pytest.raises(InputError, match=f"^{re.escape(said)}") as caught:
        lay_out(root, tmp_path / "pages")
    assert "\n" not in str(caught.value)


def test_an_anchor_that_leads_nowhere_stops_the_build_in_one_line(tmp_path: Path) -> None:
    root = small_repository(tmp_path / "repository", "# Title\n")
    done = run_build(root, tmp_path / "out")
    assert done.returncode == 2 and not (tmp_path / "out" / "html").exists()
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert re.match(r"error: notebooks/00_one\.ipynb, cell 2, line \d: .*nowhere", lines[0]), done.stderr
