"""Slides from the stored notebooks: ``make slides``. They need no network; the browser's print makes a PDF of them.

By rule, so that nobody keeps two texts: a slide for each heading, with the paragraph and the formulas below it; for
each question (Predict, then run) and each pitfall; and for each picture.
"""

import argparse
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat.v4 import new_markdown_cell, new_notebook

from fusmae_lite.core.errors import InputError, exit_status
from fusmae_lite.core.files import write_text
from fusmae_lite.core.progress import line

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
#: Headings that a reader needs and a room does not.
LEFT_OUT = re.compile(r"#+ *(References|What's next)")
SHOWN = re.compile(r"(?:> *)?\*\*Predict, then run|> *\*\*Pitfall")
LINK = re.compile(r"!\[[^\]]*\]\([^)]*\)|\[([^\]]*)\]\([^)]*\)")


def slides(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook of one Markdown cell a slide."""
    shown, heading, kept = [], "", True
    for cell in notebook.cells:
        if cell.cell_type == "code":
            pngs = [output["data"]["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
            for png in pngs if kept else ():
                shown.append(slide(f"{heading}\n\n![{heading.strip('# ')}](attachment:picture.png)", png))
            continue
        opened = False  # whether the slide of the heading still wants its paragraph
        for paragraph in re.split(r"\n\s*\n", cell.source):
            text = LINK.sub(lambda link: link[1] or "", paragraph).strip()
            if text.startswith("#"):
                kept = not LEFT_OUT.match(text)
                heading, _, rest = text.partition("\n")
                if kept:
                    shown.append(slide(text))
                opened = kept and not rest
            elif kept and text and (SHOWN.match(text) or not shown):
                shown.append(slide(f"{heading}\n\n{text}"))
                opened = False
            elif kept and text and not text.startswith("<") and (opened or text.startswith("$$")):
                shown[-1].source += f"\n\n{text}"
                opened = False
    return new_notebook(cells=shown, metadata=notebook.metadata)


def slide(text: str, png: str | None = None) -> nbformat.NotebookNode:
    """One slide, with at most one picture attached."""
    attachments = {"attachments": {"picture.png": {"image/png": png}}} if png else {}
    return new_markdown_cell(text, metadata={"slideshow": {"slide_type": "slide"}}, **attachments)


def main(out: Path, only: str) -> None:
    """Write the slides of each notebook, or of one, into a folder."""
    mathjax = importlib.util.find_spec("sphinx-mathjax-offline")
    if mathjax is None:
        raise InputError("sphinx-mathjax-offline is not installed", "run `make slides`, or pip install -e '.[site]'")
    sources = sorted((ROOT / "notebooks").glob(f"{only}*.ipynb"))
    if not sources:
        raise InputError(f"no notebook {only}", "give two digits, such as 03")
    exporter = SlidesExporter(raw_template=(HERE / "slides.html.j2").read_text(encoding="utf-8"))
    for source in sources:
        deck = slides(nbformat.read(source, as_version=4))
        body, _ = exporter.from_notebook_node(deck, resources={"metadata": {"name": source.stem}})
        write_text(out / f"{source.stem}.html", body)
        line(f"{len(deck.cells)} slides in {out / source.stem}.html")
    script = Path(mathjax.origin).parent / "static" / "mathjax" / "tex-svg-full.js"
    shutil.copyfile(script, out / "mathjax.js")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Slides from the stored notebooks.")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "slides", help="folder (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="NN", help="one notebook")
    sys.exit(exit_status(main, **vars(parser.parse_args())))
