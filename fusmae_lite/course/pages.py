"""Pages of a run: a notebook as HTML, and index.html with a card for each, its pictures and its numbers."""

import base64
import importlib.util
import io
import logging
import os
import re
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import DictLoader, Template
from nbconvert import HTMLExporter
from PIL import Image

from fusmae_lite.core.config import project_root
from fusmae_lite.core.files import write_text, write_whole
from fusmae_lite.core.progress import duration
from fusmae_lite.course.engine import Execution, short_title, without_widgets

THUMBNAIL, PICTURES = 900, 6  # longest side of a picture on a card, in pixels, and how many a card shows
ALT, SHORT = 300, 30  # characters: of the words for a picture at most, and of a sentence that says too little
FOLDED = re.compile(r"<details>.*?</details>", re.S)  # an answer, which no alternative text gives away
NAV = re.compile(r'(?<=<nav class="pager">).*?(?=</nav>)', re.S)  # of a notebook's page
GALLERY_TAG = "gallery"  # a cell with this tag puts its pictures first on the card


def headline(notebook: nbformat.NotebookNode, fallback: str) -> tuple[str, str]:
    """Title and promise: the first heading of a notebook, and the first paragraph after it, without markup."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.lstrip().startswith("#"):
            heading, _, rest = cell.source.strip().partition("\n")
            paragraphs = [text.strip() for text in rest.split("\n\n") if text.strip() and not text.startswith("#")]
            return _plain(re.sub(r"^#+ *(\d\d\W+)?", "", heading)), _plain(paragraphs[0]) if paragraphs else ""
    return fallback, ""


def write_html(executed: Path, target: Path) -> None:
    """Export an executed notebook as one HTML file with its pictures inside; MathJax, where installed, lies beside."""
    logging.getLogger("traitlets").setLevel(logging.ERROR)  # its advice is for authors, not for who runs the course
    loader = DictLoader({"page": _template("notebook.html")})
    exporter = HTMLExporter(template_name="lab", template_file="page", extra_loaders=[loader], embed_images=True)
    exporter.mathjax_url = _mathjax(target.parent)
    notebook = described(without_widgets(nbformat.read(executed, as_version=4)))
    for cell in notebook.cells:  # which link from notebooks/, not from here
        if cell.cell_type == "markdown":
            source = cell.source.replace("](../", f"]({os.path.relpath(project_root(), target.parent)}/")
            cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](\1.html", source)
    title, _ = headline(notebook, target.stem)
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title, "path": str(target.parent)}})
    write_text(target, body)


def _template(name: str) -> str:
    return resources.files("fusmae_lite.course").joinpath(name).read_text(encoding="utf-8")


def _mathjax(folder: Path) -> str:
    """Name of the MathJax in `folder`, put there if it is installed (the extra ``site``); empty otherwise."""
    found, target = importlib.util.find_spec("sphinx-mathjax-offline"), folder / "mathjax.js"
    if found and not target.is_file():
        source = Path(found.origin).parent / "static" / "mathjax" / "tex-svg-full.js"
        write_whole(target, lambda temporary: shutil.copyfile(source, temporary))
    return target.name if found else ""


def described(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with words in the metadata of each PNG output, as ``alt``: its own, or those that stand before it.

    These are the last heading and the first sentence of the last paragraph that is no mere "Predict, then run".
    """
    heading = words = ""
    for cell in notebook.cells:
        prose = FOLDED.sub("", cell.source) if cell.cell_type == "markdown" else ""
        paragraphs = prose.split("\n\n")
        for text in filter(None, map(str.strip, paragraphs)):
            heading = _plain(text.partition("\n")[0].lstrip("# ")) if text.startswith("#") else heading
            sentences = [heading] if text.startswith("#") else re.split(r"(?<=[.:?!]) ", _plain(text))
            words = next((sentence for sentence in sentences if len(sentence) > SHORT), sentences[0])
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                own = output.metadata.setdefault("image/png", {})
                own["alt"] = own.get("alt") or f"Figure in the section {heading}: {words}"[:ALT]
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> list[tuple[bytes, str]]:
    """PNG outputs of a notebook and their words, each once: those of cells tagged `gallery`, then the others."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells.sort(key=lambda cell: GALLERY_TAG not in cell.metadata.get("tags", []))
    found: dict[str, str] = {}
    for output in (output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})):
        found.setdefault(output.data["image/png"], output.metadata.get("image/png", {}).get("alt", ""))
    return [(base64.b64decode(png), words) for png, words in found.items()]


def thumbnail(png: bytes) -> str:
    """A picture as a data URI, at most :data:`THUMBNAIL` pixels wide and high."""
    image, buffer = Image.open(io.BytesIO(png)).convert("RGBA"), io.BytesIO()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(buffer, "WEBP", quality=86)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_index(folder: Path, sources: list[Path], metrics: dict[str, Any]) -> None:
    """Write ``index.html``, one page that needs no network: a card for each of `sources`, run or not.

    It leads with the held-out losses that notebook 05 recorded. `folder` is the run folder with the executed notebooks,
    `metrics` the content of metrics.json.
    """
    entries = metrics["notebooks"]
    seconds = sum(entry["seconds"] or 0 for entry in entries.values())
    summary = f"{len(entries)} of {len(sources)} notebooks, {duration(seconds)}, {metrics['machine']['summary']}"
    cards = [_card(folder, source, entries.get(source.stem)) for source in sources]
    losses = next((entry["metrics"] for stem, entry in entries.items() if stem.startswith("05")), None) or {}
    page = Template(_template("index.html"), autoescape=True)
    write_text(
        folder / "index.html", page.render(preset=metrics["preset"], summary=summary, cards=cards, losses=losses)
    )
    _link_pages(folder, [source.stem for source in sources])


def _link_pages(folder: Path, stems: list[str]) -> None:
    """Let each notebook's page lead to the index and to the pages before and after it."""
    there = [stem for stem in stems if (folder / f"{stem}.html").is_file()]
    for before, stem, after in zip(["", *there], there, [*there[1:], ""], strict=False):
        links = {before: f"previous: {before[:2]}", "index": "all notebooks of this run", after: f"next: {after[:2]}"}
        pager = " ".join(f'<a href="{target}.html">{words}</a>' for target, words in links.items() if target)
        page = folder / f"{stem}.html"
        text = page.read_text(encoding="utf-8")
        if (linked := NAV.sub(pager, text)) != text:
            write_text(page, linked)


def _card(folder: Path, source: Path, entry: dict[str, Any] | None) -> dict[str, Any]:
    title, promise = headline(nbformat.read(source, as_version=4), short_title(source))
    page = folder / f"{source.stem}.html"
    card = {"number": source.stem[:2], "title": title, "promise": promise, "state": "not run yet"}
    card["page"] = page.name if page.is_file() else ""
    if entry is None:
        return card
    executed = page.with_suffix(".failed.ipynb" if entry["failure"] else ".ipynb")
    if executed.is_file():
        card["state"] = Execution(**entry).summary()
        shown = pictures(described(nbformat.read(executed, as_version=4)))[:PICTURES]
        card["pictures"] = [(thumbnail(png), words) for png, words in shown]
    # lists and tables stay in metrics.json
    numbers = {name: value for name, value in (entry["metrics"] or {}).items() if isinstance(value, int | float | str)}
    numbers = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in numbers.items()}
    return {**card, "failure": entry["failure"], "numbers": numbers}


def _plain(markdown: str) -> str:
    """Markdown as one line of plain text."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"\s+", " ", re.sub(r"[*`]+|^> ?", "", text, flags=re.MULTILINE)).strip()
