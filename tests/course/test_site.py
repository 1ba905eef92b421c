"""The website of `make site`: built once, then read as a browser without network would, and in one.

Links, anchors and pictures are followed in the HTML; a Chromium opens every page from disk. `FUSMAE_SCREENSHOTS` keeps
what it saw.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError

ROOT = project_root()
pytestmark = pytest.mark.slow
BUILD = ROOT / "docs" / "site" / "build.py"
NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline")
if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    pytest.skip(f"{', '.join(missing)} not installed: pip install -e '.[site]'", allow_module_level=True)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: What a browser loads by itself, tag -> attribute.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "embed": "src"}
STYLES = {"stylesheet", "preload", "icon", "modulepreload"}


@dataclass
class Page(HTMLParser):
    """Links, anchors and loaded files of one page of the site."""

    path: Path
    links: list[str] = field(default_factory=list)
    sidebar: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    loaded: list[str] = field(default_factory=list)

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
