"""Prepare the notebooks for Colab and Binder: ``python docs/launch.py [ADDRESS]``.

The address of the repository stands in ``.binder/repository.txt`` and nowhere else by hand. From it this script writes

- into each notebook, below its title, the hidden cell that fetches the course when it was opened alone on Colab, and
  into its first and last cell the way to the notebooks before and after it and to both services,
- the links of ``docs/launch.md``,
- ``.binder/requirements.txt``, the pinned packages for Binder.

With an address it first writes that address down. A test holds all of them to what this script would write.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import nbformat
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import write_text
from fusmae_lite.course.parameters import find_notebooks

ADDRESS = re.compile(r"https://[\w.-]+(?:/[\w.-]+)+")
GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)")
#: Folded in JupyterLab, on Colab and on the site.
HIDDEN = {"jupyter": {"source_hidden": True}, "cellView": "form", "tags": ["hide-input"]}
ON_COLAB = 'if "google.colab" in str(get_ipython()):'
CELL = """\
{condition}  # opened alone: fetch the course, install its pinned packages
    import subprocess
    import sys

    fetch = "test -d course || git clone -q --depth 1 {address} course"
    install = f"{{sys.executable}} -m pip install -q -c course/constraints.txt -e course"
    subprocess.run(f"({{fetch}}) && {{install}}", shell=True, check=True)
    sys.path.insert(0, "course")
"""
ASK = "${FUSMAE_REPOSITORY:?set it to the address of the course}"
START, END = "<!-- links: written by docs/launch.py -->", "<!-- end of links -->"
UNKNOWN = "No address is written down yet, so there are no links here; see below how to set one."
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def repository(root: Path) -> str:
    """The written address, or an empty text; raises :class:`InputError` if it is none."""
    path = root / ".binder" / "repository.txt"
    address = path.read_text(encoding="utf-8").strip().removesuffix(".git")
    if address and not ADDRESS.fullmatch(address):
        raise InputError(f"{path.name}: {address!r} is no address", "write one like https://github.com/owner/name")
    return address


def colab_lines(address: str) -> str:
    """The cell for Colab. Unless an address is known, the variable FUSMAE_REPOSITORY names it."""
    return CELL.format(condition=ON_COLAB, address=f"${{FUSMAE_REPOSITORY:-{address}}}" if address else ASK)


def prepare(notebook: nbformat.NotebookNode, name: str, names: list[str], address: str) -> None:
    """Below the title of a notebook the hidden cell for Colab, in its first and last cell the way to its neighbours."""
    cells = notebook.cells
    if cells[1].metadata != HIDDEN:
        cells.insert(1, nbformat.v4.new_code_cell(id=f"colab{name[:2]}", metadata=HIDDEN))
    cells[1].source = colab_lines(address).rstrip()
    for cell in cells[2:]:
        cell.source = re.sub(rf"\A{re.escape(ON_COLAB)}.*\n(?:    .*\n|\n)*", "", cell.source)
    for cell in (cells[0], cells[-1]):
        cell.source = re.sub(r"\n+Course: .*\Z", "", cell.source) + f"\n\nCourse: {way(name, names, address)}"


def way(name: str, names: list[str], address: str) -> str:
    """Links from a notebook to the one before, the map, the one after and, once an address is known, the services."""
    place = names.index(name)
    before, after = names[max(place - 1, 0) : place], names[place + 1 : place + 2]
    parts = [f"[← {other.replace('_', ' ')}]({other}.ipynb)" for other in before]
    parts += ["[the map](00_start_here.ipynb#the-map)"]
    parts += [f"[{other.replace('_', ' ')} →]({other}.ipynb)" for other in after]
    if hosted := GITHUB.fullmatch(address):
        parts += [f"[{service}]({link})" for service, link in services(hosted[1], name).items()]
    return " · ".join(parts)


def services(repository: str, name: str) -> dict[str, str]:
    """Where a notebook of a repository on GitHub, ``owner/name``, opens."""
    return {
        "open on Colab": f"https://colab.research.google.com/github/{repository}/blob/HEAD/notebooks/{name}.ipynb",
        "open on Binder": f"https://mybinder.org/v2/gh/{repository}/HEAD?labpath=notebooks%2F{name}.ipynb",
    }


def links(address: str, names: list[str]) -> str:
    """A table of launch links, or a sentence that says why there are none."""
    hosted = GITHUB.fullmatch(address)
    if not address:
        return UNKNOWN
    if not hosted:
        return "Colab and Binder open notebooks by a link only from GitHub; elsewhere use the two ways below."
    rows = ["| notebook | Colab | Binder |", "|---|---|---|"]
    for name in names:
        opened = " | ".join(f"[{service}]({link})" for service, link in services(hosted[1], name).items())
        rows.append(f"| [{name}](../notebooks/{name}.ipynb) | {opened} |")
    return "\n".join(rows)


def requirements(root: Path) -> str:
    """Binder's requirements.txt: what pyproject.toml wants at run time, at the versions of constraints.txt."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = re.findall(r"^([\w-]+)==(\S+)$", (root / "constraints.txt").read_text(encoding="utf-8"), flags=re.M)
    versions = dict(pins)
    names = [canonicalize_name(Requirement(text).name) for text in project["dependencies"]]
    head = ["# Written by docs/launch.py from pyproject.toml and constraints.txt; torch for processors, 5 GB smaller."]
    head += [f"--extra-index-url {CPU_WHEELS}", "-c ../constraints.txt"]
    return "\n".join([*head, *(f"{name}=={versions[name]}" for name in names), ""])


def write_all(root: Path) -> list[str]:
    """Bring notebooks, links and requirements up to date; returns what was changed."""
    address, changed = repository(root), []
    notebooks = find_notebooks(root / "notebooks", [])
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        old = nbformat.writes(notebook)
        prepare(notebook, path.stem, [other.stem for other in notebooks], address)
        if nbformat.writes(notebook) != old:
            end = "\n" * path.read_text(encoding="utf-8").endswith("\n")  # the diff is the cell alone
            write_text(path, nbformat.writes(notebook).rstrip("\n") + end)
            changed.append(path.name)
    page = root / "docs" / "launch.md"
    text = page.read_text(encoding="utf-8")
    table = f"{START}\n\n{links(address, [path.stem for path in notebooks])}\n\n{END}"
    wanted = re.sub(rf"{re.escape(START)}.*{re.escape(END)}", lambda _: table, text, flags=re.S)
    for path, old, new in (
        (page, text, wanted),
        (root / ".binder" / "requirements.txt", _read(root / ".binder" / "requirements.txt"), requirements(root)),
    ):
        if new != old:
            write_text(path, new)
            changed.append(path.name)
    return changed


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def main(arguments: list[str]) -> int:
    """Write down an address, if one is given, and bring everything up to date."""
    root = project_root()
    try:
        if arguments:
            address = arguments[0].rstrip("/").removesuffix(".git")
            if len(arguments) > 1 or not ADDRESS.fullmatch(address):
                raise InputError(
                    f"{' '.join(arguments)!r} is no address", "give one like https://github.com/owner/name"
                )
            write_text(root / ".binder" / "repository.txt", address + "\n")
        changed = write_all(root)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"repository: {repository(root) or 'not set'}; changed: {', '.join(changed) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
