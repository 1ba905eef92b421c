"""Parameters of the course: which exist, of what type, and whether the given ones fit. Checked before anything runs."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fusmae_lite.core.architecture import Folder
from fusmae_lite.core.config import UNSET, RunConfig, fields_that, load_preset
from fusmae_lite.core.errors import InputError, choose

#: Types that a parameters cell may declare.
TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


def find_notebooks(folder: Path, only: Iterable[str] = ()) -> list[Path]:
    """Notebooks ``NN_name.ipynb`` of a folder in their order, or those with the numbers in `only`."""
    found = {path.name[:2]: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise InputError(f"no notebooks in {folder}", "work in a clone of the repository (pip install -e .)")
    numbers = sorted({str(number).zfill(2) for number in only} or found)
    for number in numbers:
        if number not in found:
            raise InputError(f"no notebook {number!r} in {folder}", choose(number, found))
    return [found[number] for number in numbers]


def declared(notebook: Path) -> dict[str, type]:
    """Names and types in the cell tagged ``parameters``: one ``name: type = literal  # help`` a line."""
    from papermill import inspect_notebook  # slow to import, and only the runner needs it

    cell = inspect_notebook(escaped(notebook))
    if not cell:
        raise InputError(f"{notebook.name} declares no parameters", "tag one cell 'parameters', `name: int = 5` a line")
    kinds = {name: parameter["inferred_type_name"] for name, parameter in cell.items()}
    for name, kind in kinds.items():
        if kind not in TYPES:
            raise InputError(
                f"{notebook.name}: parameter {name!r} has no type the course knows",
                f"write `{name}: {' | '.join(TYPES)} = ...` with one of these types",
            )
    return {name: TYPES[kind] for name, kind in kinds.items()}


def escaped(path: Path) -> str:
    """A path for papermill, which takes braces for placeholders."""
    return str(path).replace("{", "{{").replace("}", "}}")


def check(
    given: Mapping[str, Any], notebooks: Mapping[str, Mapping[str, type]], chosen: Iterable[str] | None = None
) -> tuple[RunConfig, dict[str, dict[str, Any]]]:
    """The configuration of a run, and for each notebook the given parameters that it declares, in its types.

    Args:
        given: values as text or typed; ``""`` and ``-1`` mean "as the preset says".
        notebooks: what each notebook declares.
        chosen: the notebooks that will run; all by default.

    Raises:
        InputError: a name that no notebook declares, or none of the chosen ones, or a value of the wrong type.
    """
    exist = list(dict.fromkeys(name for types in notebooks.values() for name in types))
    values = {name: value for name, value in given.items() if name == "preset" or value not in UNSET}
    running = list(notebooks if chosen is None else chosen)
    for name in values:
        if name not in exist:
            raise InputError(f"unknown parameter {name!r}", choose(name, exist))
        if not any(name in notebooks[notebook] for notebook in running):
            others = ", ".join(notebook[:2] for notebook, types in notebooks.items() if name in types)
            what = f"parameter {name!r} does not exist in notebook {', '.join(stem[:2] for stem in running)}"
            raise InputError(what, f"leave it out, or run a notebook that has it: {others}")
    folders = fields_that(Folder) & values.keys()  # relative to the caller, while notebooks run in their own folder
    values |= {name: str(Path(values[name]).expanduser().resolve()) for name in folders}
    config = load_preset(**{name: value for name, value in values.items() if name in RunConfig.model_fields})
    typed = {
        notebook: {name: _convert(name, values[name], kind) for name, kind in types.items() if name in values}
        for notebook, types in notebooks.items()
    }
    return config, typed


def _convert(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` where that is exact: "16" is an int, "1e-4" a float, "true" a bool, "1.5" no int."""
    try:
        return str(value) if kind is str else TypeAdapter(kind).validate_python(value)
    except ValidationError:
        raise InputError(f"parameter {name!r}: {value!r} is refused", f"give a value of type {kind.__name__}") from None


def parse(assignments: Iterable[str]) -> dict[str, str]:
    """``name=value`` texts of the command line as a dict; each name once, each with a value."""
    pairs: dict[str, str] = {}
    for text in assignments:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise InputError(f"parameter {text!r} is refused", "write -p name=value")
        if value in UNSET:  # these have their meaning in a notebook's parameters cell only
            raise InputError(f"parameter {name!r}: {value!r} says nothing", "leave it out to take the preset's value")
        if pairs.setdefault(name, value) != value:
            raise InputError(f"parameter {name!r} is given twice, {pairs[name]!r} and {value!r}", "give it once")
    return pairs


def refuse_injected(executed: Sequence[str]) -> None:
    """Raise InputError for a parameter that papermill injected and the notebook does not declare.

    papermill only warns of it, and a misspelt parameter would train the default. `executed` are the sources of the
    cells run so far, IPython's ``In``; a parameters cell declares ``name: type = literal``.
    """
    known: dict[str, None] = {}
    for source in executed:
        try:
            body = ast.parse(source).body
        except SyntaxError:  # a magic of IPython's
            continue
        if source.startswith("# Parameters\n"):
            targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
            for name in (target.id for target in targets if isinstance(target, ast.Name)):
                if name not in known:
                    raise InputError(f"this notebook has no parameter {name!r}", choose(name, known))
        targets = [node.target for node in body if isinstance(node, ast.AnnAssign)]
        known |= dict.fromkeys(target.id for target in targets if isinstance(target, ast.Name))
