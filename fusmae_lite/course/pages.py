"""Pages of a run: a notebook as HTML, and index.html with a card for each, its pictures and its numbers."""

from __future__ import annotations

import base64
import html
import io
import logging
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import nbformat
from nbconvert import HTMLExporter
from PIL import Image

from fusmae_lite.core.files import write_text
from fusmae_lite.core.progress import duration

#: Longest side of a picture on a card, in pixels, and how many a card shows.
THUMBNAIL, PICTURES = 900, 6
#: A cell with this tag puts its pictures first on the card.
GALLERY_TAG = "gallery"


def short_title(notebook: Path) -> str:
    """``03 cross attention`` for ``03_cross_attention.ipynb``: for progress lines."""
    return notebook.stem.replace("_", " ")


def headline(notebook: nbformat.NotebookNode, fallback: str) -> tuple[str, str]:
    """Title and promise: the first heading of a notebook, and the first paragraph after it, without markup."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.lstrip().startswith("#"):
            heading, _, rest = cell.source.strip().partition("\n")
            paragraphs = [text.strip() for text in rest.split("\n\n") if text.strip() and not text.startswith("#")]
            return _plain(re.sub(r"^#+ *(\d\d\W+)?", "", heading)), _plain(paragraphs[0]) if paragraphs else ""
    return fallback, ""


def without_widgets(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with each viewer as its last picture: a widget without its kernel would show as an error."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data.pop("application/vnd.jupyter.widget-view+json", None)
    return notebook


def write_html(executed: Path, target: Path) -> None:
    """Export an executed notebook as one HTML file with its pictures inside."""
    logging.getLogger("traitlets").setLevel(logging.ERROR)  # its advice is for authors, not for who runs the course
    exporter = HTMLExporter(template_name="lab", embed_images=True)
    notebook = without_widgets(nbformat.read(executed, as_version=4))
    title, _ = headline(notebook, target.stem)
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title, "path": str(target.parent)}})
    write_text(target, body)


def pictures(notebook: nbformat.NotebookNode) -> Iterator[bytes]:
    """PNG outputs of a notebook: those of cells tagged `gallery` first, then the others in their order, each once."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells.sort(key=lambda cell: GALLERY_TAG not in cell.metadata.get("tags", []))
    seen = set()
    for output in (output for cell in cells for output in cell.outputs):
        data = output.get("data", {}).get("image/png")
        if data and data not in seen:
            seen.add(data)
            yield base64.b64decode(data)


def thumbnail(png: bytes) -> str:
    """A picture as a data URI, made smaller than :data:`THUMBNAIL` pixels."""
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=86)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_index(folder: Path, sources: list[Path], metrics: dict[str, Any]) -> None:
    """Write ``index.html``: one self-contained page, no network.

    Args:
        folder: the run folder, with the executed notebooks.
        sources: the notebooks of the course, in order; those not executed get a card that says so.
        metrics: the content of metrics.json.
    """
    done = metrics["notebooks"]
    seconds = sum(entry["seconds"] or 0 for entry in done.values())
    template = Template(resources.files("fusmae_lite.course").joinpath("index.html").read_text(encoding="utf-8"))
    page = template.substitute(
        preset=html.escape(metrics["preset"]),
        summary=html.escape(
            f"{len(done)} of {len(sources)} notebooks, {duration(seconds)}, {metrics['machine']['summary']}"
        ),
        cards="\n".join(_card(folder, source, done.get(source.stem)) for source in sources),
    )
    write_text(folder / "index.html", page)


def _card(folder: Path, source: Path, entry: dict[str, Any] | None) -> str:
    """One notebook as HTML."""
    finished = folder / f"{source.stem}.ipynb"
    failed = bool(entry and entry["failure"])
    executed = folder / f"{source.stem}.failed.ipynb" if failed else finished
    there = entry is not None and executed.is_file()
    notebook = nbformat.read(executed if there else source, as_version=4)
    title, promise = headline(nbformat.read(source, as_version=4), short_title(source))
    links = [thumbnail(png) for _, png in zip(range(PICTURES), pictures(notebook), strict=False)] if there else []
    shown = "".join(f'<img src="{link}" alt="Picture of {html.escape(title)}" loading="lazy">' for link in links)
    if failed:
        reason = html.escape(entry["failure"]["message"])
        state = f'<p class="failed">stopped in cell {entry["failure"]["cell"]}: {reason}</p>'
    elif there:
        memory = f", {entry['peak_memory_mib']:.0f} MiB" if entry["peak_memory_mib"] else ""
        state = f'<p class="state">{entry["cells"]} cells in {duration(entry["seconds"])}{memory}</p>'
    else:
        state = '<p class="state">not run yet</p>'
    target = f"{source.stem}.html"
    name = f'<a href="{target}">{html.escape(title)}</a>' if (folder / target).is_file() else html.escape(title)
    return (
        f'<article><h2><span class="number">{source.stem[:2]}</span> {name}</h2><p>{html.escape(promise)}</p>'
        f'<div class="pictures">{shown}</div>{state}{_numbers(entry)}</article>'
    )


def _numbers(entry: dict[str, Any] | None) -> str:
    """The recorded single numbers, folded away; longer values stay in metrics.json."""
    values = {
        key: value
        for key, value in ((entry or {}).get("metrics") or {}).items()
        if isinstance(value, (int, float, str))
    }
    if not values:
        return ""
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    rows = "".join(f"<tr><th>{html.escape(key)}</th><td>{html.escape(text)}</td></tr>" for key, text in shown.items())
    return f"<details><summary>{len(values)} numbers</summary><table>{rows}</table></details>"


def _plain(markdown: str) -> str:
    """A line of Markdown as plain text."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"\s+", " ", re.sub(r"[*`]+|^> ?", "", text, flags=re.MULTILINE)).strip()
