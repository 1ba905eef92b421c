"""What becomes a page of the site, and where the links of a page lead once it is one.

Pages keep their place, so that links between them stay as written; README.md alone is renamed to index.md. A link to
anything else of the repository (a module, a folder, the licence) leads to a page below ``source/`` that shows it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import nbformat

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import write_text
from fusmae_lite.course.engine import without_widgets
from fusmae_lite.course.pages import described

#: Code in Markdown: nothing inside is a link. A link's text may be code, so only the tail `](target)` is looked for.
CODE = re.compile(r"(^ {0,3}(```+|~~~+).*?^ {0,3}\2[^\n]*$|(?<!`)(`+)(?!`)(?:.+?)(?<!`)\3(?!`))", re.S | re.M)
LINK = re.compile(r"\]\(<?([^()\s<>]+)>?(\s+\"[^\"]*\")?\)")
IMAGE = re.compile(r"<img[^>]*?src=\"([^\"]+)\"")
ELSEWHERE = re.compile(r"[a-z]+:|#", re.I)
PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".webp"}
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".yaml": "yaml", ".json": "json", ".cff": "yaml"}
HIDDEN = {"__pycache__", "_build"}
LARGEST = 400_000  # bytes of a file that is still shown as text


def find_pages(root: Path) -> list[PurePosixPath]:
    """Pages of the repository at `root`, in the order of the navigation: README, notebooks, docs, the rest."""
    found = [root / "README.md", root / "docs" / "playground.md", *sorted((root / "notebooks").glob("*.ipynb"))]
    found = [path for path in found if path.name != "playground.md" or path.is_file()]
    first = [root / "RESULTS.md", root / "docs" / "glossary.md", root / "docs" / "symbols.md"]
    found += [path for path in first if path.is_file()]
    found += sorted((root / "docs").glob("*.md"))
    found += [path for path in sorted(root.glob("*/README.md")) if not path.parent.name.startswith(".")]
    found += sorted(root.glob("*.md"))
    return list(dict.fromkeys(PurePosixPath(path.relative_to(root).as_posix()) for path in found))


@dataclass
class Stage:
    """Pages of a repository laid out for Sphinx.

    Args:
        root: the repository.
        folder: where the pages are written.
        pages: what :func:`find_pages` found.
        sources: files and folders that pages link to and that are no pages; filled by :meth:`page`.
    """

    root: Path
    folder: Path
    pages: list[PurePosixPath]
    sources: set[PurePosixPath] = field(default_factory=set)

    def page(self, page: PurePosixPath) -> None:
        """Write one page, its links rewritten and its pictures beside it.

        Raises:
            InputError: a link or picture of the page does not exist, or a notebook cannot be read.
        """
        path = self.root / page
        if page.suffix != ".ipynb":
            text = self._rewritten(path.read_text(encoding="utf-8"), page, lambda line: f"line {line}")
            write_text(self.folder / staged(page), text)
            return
        try:
            notebook = described(without_widgets(nbformat.read(path, as_version=4)))
        except Exception as error:  # whatever a broken file makes nbformat raise
            reason = str(error).split("\n")[0][:100]
            raise InputError(f"{page} is no notebook ({reason})", "restore it from git") from None
        for number, cell in enumerate(notebook.cells, start=1):
            pictures = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
            words = [picture.metadata["image/png"]["alt"] for picture in pictures]
            if words:  # myst-nb has one text for a cell
                cell.metadata["mystnb"] = {"image": {"alt": " ".join(dict.fromkeys(words))}}
                if width := max(picture.metadata["image/png"].get("width", 0) for picture in pictures):
                    cell.metadata["mystnb"]["image"]["width"] = f"{width}px"  # half of its pixels
            if cell.cell_type == "markdown":
                place = f"cell {number}"
                cell.source = self._rewritten(cell.source, page, lambda _line, place=place: place)
        write_text(self.folder / page, nbformat.writes(notebook))

    def source(self, source: PurePosixPath) -> None:
        """Write the page that shows a file, or lists a folder and shows its files in turn."""
        path, target = self.root / source, source_page(source)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.name not in HIDDEN and not p.name.startswith("."))
            shown = [p for p in inside if p.is_dir() or is_text(p)]
            lines = [f"- [{p.name}{'/' * p.is_dir()}]({self._link(relative(p, self.root), target)})" for p in shown]
            left = len(inside) - len(shown)
            lines += [f"- and {left} files that are no text"] * bool(left)
        elif is_text(path):
            self._copy(source, PurePosixPath("files") / source)
            lines = [f"```{{literalinclude}} /files/{source}", f":language: {LANGUAGES.get(path.suffix, 'text')}"]
            lines += [":linenos:", "```"]
        else:
            lines = ["This file is no text; it lies in the repository."]
        write_text(self.folder / target, "\n".join(["---", "orphan: true", "---", f"# `{source}`", "", *lines, ""]))

    def _rewritten(self, text: str, page: PurePosixPath, place: Callable[[int], str]) -> str:
        """Markdown with every link to the repository pointed at a page of the site."""
        pieces, line, last = [], 1, 0
        for code in [*CODE.finditer(text), None]:
            prose = text[last : code.start() if code else len(text)]

            def link(match: re.Match[str], prose: str = prose, line: int = line) -> str:
                where = f"{page}, {place(line + prose.count(chr(10), 0, match.start()))}"
                return match.group().replace(match.group(1), self._target(match.group(1), page, where))

            pieces += [IMAGE.sub(link, LINK.sub(link, prose)), code.group() if code else ""]
            line += text.count("\n", last, code.end() if code else len(text))
            last = code.end() if code else len(text)
        return "".join(pieces)

    def _target(self, target: str, page: PurePosixPath, where: str) -> str:
        """Where a link of a page leads on the site; pictures are copied on the way."""
        if ELSEWHERE.match(target):
            return target
        name, _, anchor = target.partition("#")
        path = Path(os.path.normpath(self.root / page.parent / name))
        if not path.exists() or not path.is_relative_to(self.root):
            raise InputError(f"{where}: {target} does not exist", "mend the link; it is relative to the page")
        found = relative(path, self.root)
        if path.suffix.lower() in PICTURES:
            self._copy(found, found)
            return target
        if found not in self.pages and path.is_dir() and found / "README.md" in self.pages:
            found = found / "README.md"
        return self._link(found, staged(page)) + (f"#{anchor}" if anchor and found in self.pages else "")

    def _link(self, found: PurePosixPath, page: PurePosixPath) -> str:
        """From a staged page to the page for a file or folder of the repository, which is noted where it is source."""
        if found not in self.pages:
            self.sources.add(found)
        target = staged(found) if found in self.pages else source_page(found)
        return os.path.relpath(target, page.parent)

    def _copy(self, source: PurePosixPath, target: PurePosixPath) -> None:
        (self.folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.root / source, self.folder / target)


def staged(page: PurePosixPath) -> PurePosixPath:
    """Place of a page among the staged ones."""
    return PurePosixPath("index.md") if page == PurePosixPath("README.md") else page


def source_page(source: PurePosixPath) -> PurePosixPath:
    """Place of the page that shows a file or folder."""
    return PurePosixPath("source") / f"{source}.md"


def relative(path: Path, root: Path) -> PurePosixPath:
    return PurePosixPath(path.relative_to(root).as_posix())


def is_text(path: Path) -> bool:
    """Whether a file is short UTF-8 text."""
    if path.stat().st_size > LARGEST:
        return False
    try:
        return "\0" not in path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
