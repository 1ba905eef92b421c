"""Build the course as a website from its stored outputs: ``make site``. Reading it needs no network and no server.

Nothing is executed. Every warning is an error: a reference that leads nowhere stops the build with a line that names
the page, and the site of the last good build stays.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from pages import Stage, find_pages, staged

from fusmae_lite.core.errors import InputError, RunError, exit_status
from fusmae_lite.core.files import write_text
from fusmae_lite.core.progress import duration, line

HERE = Path(__file__).resolve().parent
NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx-mathjax-offline")
MATHJAX = "tex-svg-full.js"
COLUMNS = 88  # of code, which then fits the page
PLAYGROUND = PurePosixPath("docs/playground.md")
MARK = "<!-- the playground, on the site -->"  # in that page
CELL = 10_000  # myst-nb counts lines of a notebook as cell * 10,000 + line + 1


def build(root: Path, out: Path) -> Path:
    """Build the site of the repository at `root` into ``out/html``; returns the path of its index.html.

    Raises:
        InputError: a page is bad; the message names it.
        RunError: Sphinx stopped for another reason.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(f"{', '.join(missing)} not installed", "run `make site`, or pip install -e '.[site]'")
    stage, fresh, html = out / "pages", out / "html.new", out / "html"
    for folder in (stage, fresh):
        shutil.rmtree(folder, ignore_errors=True)
    lay_out(root, stage)
    write_assets = embed_playground(stage / PLAYGROUND)
    with ThreadPoolExecutor(1) as beside:  # the model is exported while Sphinx renders
        assets = beside.submit(write_assets, out / "playground") if write_assets else None
        run_sphinx(stage, fresh, out)
    if assets:
        assets.result()
        shutil.copytree(out / "playground", fresh / "_static" / "playground", dirs_exist_ok=True)
    for template in (fresh / "_static").glob("*.html"):  # the theme's, which are no pages
        template.unlink()
    shutil.rmtree(html, ignore_errors=True)
    fresh.rename(html)
    return html / "index.html"


def lay_out(root: Path, folder: Path) -> None:
    """Write every page, the pages for the sources they link to, and Sphinx's settings into `folder`."""
    stage = Stage(root, folder, find_pages(root))
    for page in stage.pages:
        stage.page(page)
    if importlib.util.find_spec("ruff"):
        ruff = [sys.executable, "-m", "ruff", "format", "--quiet", "--isolated", "--line-length", str(COLUMNS)]
        subprocess.run([*ruff, folder / "notebooks"], check=False)  # as it stands where ruff cannot read a cell
    shown: set[PurePosixPath] = set()
    while waiting := stage.sources - shown:
        for source in sorted(waiting):
            stage.source(source)
        shown |= waiting
    index = folder / "index.md"
    write_text(index, index.read_text(encoding="utf-8") + navigation(stage.pages))
    shutil.copyfile(HERE / "conf.py", folder / "conf.py")
    shutil.copytree(HERE / "_static", folder / "_static")
    mathjax = Path(importlib.util.find_spec(NEEDED[-1]).origin).parent / "static" / "mathjax" / MATHJAX
    (folder / "_static" / "mathjax").mkdir()
    shutil.copyfile(mathjax, folder / "_static" / "mathjax" / MATHJAX)


def embed_playground(page: Path) -> Callable[[Path], None] | None:
    """Put the playground into its staged page, if there is one; returns what writes its files into a folder.

    Where it cannot be built, the page says why.
    """
    if not page.is_file():
        return None
    import playground  # brings torch along

    if obstacle := playground.obstacle():
        line(f"note: the playground stays a picture: {obstacle}")
    embedded = f"*This copy of the site was built without it: {obstacle}.*" if obstacle else playground.FRAGMENT
    write_text(page, page.read_text(encoding="utf-8").replace(MARK, embedded))
    return None if obstacle else playground.write_assets


def navigation(pages: list[PurePosixPath]) -> str:
    """The hidden tables of contents that make up the sidebar."""
    groups: dict[str, list[str]] = {"The course": [], "To look up": [], "The project": []}
    for page in pages[1:]:
        in_course = page.suffix == ".ipynb" or page == PLAYGROUND
        in_docs = page.parent.name == "docs" or page.name == "RESULTS.md"
        group = "The course" if in_course else "To look up" if in_docs else "The project"
        groups[group].append(str(staged(page).with_suffix("")))
    return "".join(
        "\n".join(["\n", "```{toctree}", ":hidden:", f":caption: {name}", "", *entries, "```", ""])
        for name, entries in groups.items()
        if entries
    )


def run_sphinx(stage: Path, target: Path, out: Path) -> None:
    """Let Sphinx render `stage` into `target`; raises the first of its warnings as an :class:`InputError`."""
    report = out / "problems.txt"
    report.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as doctrees:
        command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", doctrees, "-w", report, stage, target]
        done = subprocess.run(command, capture_output=True, text=True, cwd=stage)
    text = report.read_text(encoding="utf-8") if report.is_file() else ""
    problems = [row for row in text.splitlines() if "WARNING: " in row or "ERROR: " in row]
    if problems:
        rest = f" (and {len(problems) - 1} more, see {report})" if len(problems) > 1 else ""
        raise InputError(explain(problems[0], stage) + rest, "mend that page and run `make site` again")
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise RunError(f"Sphinx stopped with status {done.returncode}: {last}")


def explain(problem: str, stage: Path) -> str:
    """One of Sphinx's warnings with the page as the repository names it, and the cell of a notebook."""
    place, _, message = re.sub(r"\x1b\[[\d;]*m", "", problem).partition(": ")
    page, _, number = place.removeprefix(f"{stage}/").partition(":")
    page = "README.md" if page == "index.md" else page
    kind, _, what = message.partition(": ") if message.startswith(("WARNING", "ERROR")) else ("", "", message)
    if number.isdigit() and page.endswith(".ipynb"):
        number = f"cell {int(number) // CELL}, line {max(int(number) % CELL - 1, 1)}"
    elif number.isdigit():
        number = f"line {number}"
    return ", ".join(part for part in (page, number) if part) + f": {what}"


def main(out: Path, root: Path) -> None:
    """Build the site and say where it is."""
    start = time.monotonic()
    index = build(root.resolve(), out.resolve())
    line(f"{len(list(index.parent.rglob('*.html')))} pages in {duration(time.monotonic() - start)}; open {index}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the course as a website that needs no network.")
    parser.add_argument("--out", type=Path, default=HERE / "_build", help="folder to build in (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=HERE.parents[1], help="repository to build from (default: this)")
    sys.exit(exit_status(main, **vars(parser.parse_args())))
