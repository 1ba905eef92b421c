"""Pages of a run: a notebook as HTML, and index.html with a card for each, its pictures and its numbers."""

from __future__ import annotations

import base64
import io
import logging
import re
from importlib import resources
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Template
from nbconvert import HTMLExporter
from PIL import Image

from fusmae_lite.core.files import write_text
from fusmae_lite.core.progress import duration
from fusmae_lite.course.engine import Execution, short_title, without_widgets

THUMBNAIL, PICTURES = 900, 6  # longest side of a picture on a card, in pixels, and how many a card shows
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
    """Export an executed notebook as one HTML file with its pictures inside."""
    logging.getLogger("traitlets").setLevel(logging.ERROR)  # its advice is for authors, not for who runs the course
    exporter = HTMLExporter(template_name="lab", embed_images=True)
    notebook = without_widgets(nbformat.read(executed, as_version=4))
    title, _ = headline(notebook, target.stem)
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title, "path": str(target.parent)}})
    write_text(target, body)


def pictures(notebook: nbformat.NotebookNode) -> list[bytes]:
    """PNG outputs of a notebook, each once: those of cells tagged `gallery`, then the others in their order."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells.sort(key=lambda cell: GALLERY_TAG not in cell.metadata.get("tags", []))
    encoded = dict.fromkeys(output.get("data", {}).get("image/png") for cell in cells for output in cell.outputs)
    return [base64.b64decode(png) for png in encoded if png]


def thumbnail(png: bytes) -> str:
    """A picture as a data URI, at most :data:`THUMBNAIL` pixels wide and high."""
    image, buffer = Image.open(io.BytesIO(png)).convert("RGBA"), io.BytesIO()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(buffer, "WEBP", quality=86)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_index(folder: Path, sources: list[Path], metrics: dict[str, Any]) -> None:
    """Write ``index.html``, one page that needs no network: a card for each of `sources`, run or not.

    `folder` is the run folder with the executed notebooks, `metrics` the content of metrics.json.
    """
    entries = metrics["notebooks"]
    seconds = sum(entry["seconds"] or 0 for entry in entries.values())
    summary = f"{len(entries)} of {len(sources)} notebooks, {duration(seconds)}, {metrics['machine']['summary']}"
    template = resources.files("fusmae_lite.course").joinpath("index.html").read_text(encoding="utf-8")
    cards = [_card(folder, source, entries.get(source.stem)) for source in sources]
    page = Template(template, autoescape=True).render(preset=metrics["preset"], summary=summary, cards=cards)
    write_text(folder / "index.html", page)


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
        card["pictures"] = [thumbnail(png) for png in pictures(nbformat.read(executed, as_version=4))[:PICTURES]]
    # lists and tables stay in metrics.json
    numbers = {name: value for name, value in (entry["metrics"] or {}).items() if isinstance(value, int | float | str)}
    numbers = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in numbers.items()}
    return {**card, "failure": entry["failure"], "numbers": numbers}


def _plain(markdown: str) -> str:
    """Markdown as one line of plain text."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"\s+", " ", re.sub(r"[*`]+|^> ?", "", text, flags=re.MULTILINE)).strip()
