"""The glossary and the symbol table: every link leads to a heading or file that exists, every name to code."""

from __future__ import annotations

import importlib
import re
from itertools import chain
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from fusmae_lite.core.config import project_root

DOCS = project_root() / "docs"
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
ENTRY = re.compile(r"^- \*\*(.+?)\*\*: (.+)$", re.M)
TERMS = ENTRY.findall((DOCS / "glossary.md").read_text(encoding="utf-8"))
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (DOCS / "symbols.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| symbol")
]


def slug(heading: str) -> str:
    """The anchor of a heading as GitHub and the site make it."""
    plain = re.sub(r"[*`]|\]\([^)]*\)|\[", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    """Anchors of a notebook or Markdown file."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return {slug(heading) for heading in re.findall(r"^#{1,4} +(.+)$", text, flags=re.M)}


def holds(owner: object, name: str) -> bool:
    """Whether a class has that attribute, property, method or field."""
    fields = {**getattr(owner, "model_fields", {}), **getattr(owner, "__dataclass_fields__", {})}
    return hasattr(owner, name) or name in fields


def resolves(name: str, modules: list[ModuleType]) -> bool:
    """Whether ``Class.member``, ``Class`` or ``function`` is found in one of the modules."""
    head, _, member = name.partition(".")
    owners = [getattr(module, head) for module in modules if hasattr(module, head)]
    return any(not member or holds(owner, member) for owner in owners)


def modules_of(cell: str) -> list[ModuleType]:
    paths = [(DOCS / target).resolve().relative_to(project_root()) for _, target in LINK.findall(cell)]
    return [importlib.import_module(".".join(path.with_suffix("").parts)) for path in paths]


def test_glossary_has_terms_of_both_trades_each_once_in_short() -> None:
    names = [name for name, _ in TERMS]
    assert 50 <= len(names) <= 90 and len(set(names)) == len(names)
    entries = re.findall(r"^- ", (DOCS / "glossary.md").read_text(encoding="utf-8"), flags=re.M)
    assert len(entries) == len(TERMS), "an entry is one line: - **term**: words. [place](link)"
    assert max(len(LINK.sub("", text).split()) for _, text in TERMS) <= 45


@pytest.mark.parametrize(("name", "text"), TERMS, ids=[name for name, _ in TERMS])
def test_a_term_leads_to_where_it_is_explained(name: str, text: str) -> None:
    targets = [target for _, target in LINK.findall(text)]
    assert targets, f"{name} leads nowhere"
    for target in targets:
        file, _, anchor = target.partition("#")
        path = (DOCS / file).resolve()
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}: the headings are {sorted(anchors(path))}"


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_symbol_leads_to_code_that_exists(row: list[str]) -> None:
    code, modules = row[3], modules_of(row[4])
    names = re.findall(r"`([^`]+)`", code)
    assert modules and (names or code)
    source = "\n".join(Path(module.__file__).read_text(encoding="utf-8") for module in modules)
    for name in names:
        if "." in name or name[0].isupper():
            assert resolves(name, modules), f"{name} is in none of {row[4]}"
        else:  # functions; else the name of a variable, an attribute or an argument
            bare = name.partition("[")[0]
            assert resolves(bare, modules) or re.search(rf"\b{re.escape(bare)}\b", source), name


def test_the_plan_of_the_house_names_what_exists() -> None:
    text = (project_root() / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| an? .*", text, flags=re.M)
    assert len(rows) == 9
    for row in rows:
        files = [project_root() / target for _, target in LINK.findall(row)]
        source = "\n".join(path.read_text(encoding="utf-8") for path in files)
        for name in re.findall(r"`(\w+)`", row):
            assert re.search(rf"\b{name}\b", source), f"{name} is in none of the files of: {row}"


def test_every_equation_of_the_paper_has_its_symbols() -> None:
    spans = re.findall(r"(\d+)(?:-(\d+))?(?!\.)", " ".join(row[5] for row in ROWS if row[5] not in ("3.2", "3.3")))
    covered = set(chain.from_iterable(range(int(a), int(b or a) + 1) for a, b in spans))
    assert covered == set(range(1, 12))
