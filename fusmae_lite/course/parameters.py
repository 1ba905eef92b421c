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

Declared = dict[str, type]


def find_notebooks(folder: Path, only: Iterable[str] = ()) -> list[Path]:
    """Notebooks ``NN_name.ipynb`` of a folder in their order, or the numbers in `only`.

    Raises:
        InputError: there are none, or not the one asked for; the message lists those that exist.
    """
    found = {path.name[:2]: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise InputError(f"no notebooks in {folder}", "work in a clone of the repository (pip install -e .)")
    wanted = [str(number).zfill(2) for number in only] or list(found)
    for number in wanted:
        if number not in found:
            raise InputError(f"no notebook {number!r} in {folder}", choose(number, found))
    return [found[number] for number in sorted(set(wanted))]


def declared(notebook: Path) -> Declared:
    """Names and types in the cell tagged ``parameters``: one ``name: type = literal  # help`` a line.

    Raises:
        InputError: no such cell, or a line of another form.
    """
    from papermill import inspect_notebook  # slow to import, and only the runner needs it

    escaped = str(notebook).replace("{", "{{").replace("}", "}}")  # papermill formats paths
    found = inspect_notebook(escaped)
    if not found:
        raise InputError(f"{notebook.name} declares no parameters", "tag one cell 'parameters', `name: int = 5` a line")
    for name, parameter in found.items():
        if parameter["inferred_type_name"] not in TYPES:
            raise InputError(
                f"{notebook.name}: parameter {name!r} has no type the course knows",
                f"write `{name}: {' | '.join(TYPES)} = ...` with one of these types",
            )
    return {name: TYPES[parameter["inferred_type_name"]] for name, parameter in found.items()}


def check(
    given: Mapping[str, Any], notebooks: Mapping[str, Declared], chosen: Iterable[str] | None = None
) -> tuple[RunConfig, dict[str, dict[str, Any]]]:
    """Check parameters against the notebooks and the typed configuration.

    Args:
        given: name = value, values as text or typed; ``""`` and ``-1`` mean "as the preset says".
        notebooks: what each notebook declares.
        chosen: the notebooks that will run; all by default.

    Returns:
        The configuration of the run, and for each notebook the parameters that it declares, in its types.

    Raises:
        InputError: a name that no notebook declares, or none of the chosen ones, or a value of the wrong type.
    """
    exist = list(dict.fromkeys(name for parameters in notebooks.values() for name in parameters))
    values = {name: value for name, value in given.items() if name == "preset" or value not in UNSET}
    running = list(notebooks if chosen is None else chosen)
    for name in values:
        if name not in exist:
            raise InputError(f"unknown parameter {name!r}", choose(name, exist))
        if not any(name in notebooks[notebook] for notebook in running):
            others = ", ".join(notebook[:2] for notebook, parameters in notebooks.items() if name in parameters)
            what = f"parameter {name!r} does not exist in notebook {', '.join(stem[:2] for stem in running)}"
            raise InputError(what, f"leave it out, or run a notebook that has it: {others}")
    folders = fields_that(Folder) & values.keys()  # relative to the caller, while notebooks run in their own folder
    values |= {name: str(Path(values[name]).expanduser().resolve()) for name in folders}
    config = load_preset(**{name: value for name, value in values.items() if name in RunConfig.model_fields})
    typed = {
        notebook: {name: _convert(name, values[name], kind) for name, kind in parameters.items() if name in values}
        for notebook, parameters in notebooks.items()
    }
    return config, typed


def parse(assignments: Iterable[str]) -> dict[str, str]:
    """``name=value`` texts of the command line as a dict.

    Raises:
        InputError: one without ``=``, one given twice, or one whose value says nothing: ``""`` and ``-1`` mean "as the
            preset says" in a notebook's parameters cell only.
    """
    pairs: dict[str, str] = {}
    for text in assignments:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise InputError(f"parameter {text!r} is refused", "write -p name=value")
        if value in UNSET:
            raise InputError(f"parameter {name!r}: {value!r} says nothing", "leave it out to take the preset's value")
        if pairs.setdefault(name, value) != value:
            raise InputError(f"parameter {name!r} is given twice, {pairs[name]!r} and {value!r}", "give it once")
    return pairs


def refuse_injected(executed: Sequence[str]) -> None:
    """Refuse parameters that a notebook does not declare, in the kernel that runs it.

    papermill writes whatever it is given into a cell of its own and only warns of a name that nobody reads: a
    misspelt parameter would train the default.

    Args:
        executed: sources of the cells run so far, IPython's ``In``.

    Raises:
        InputError: the injected cell assigns a name that no parameters cell (``name: type = literal``) before it has.
    """
    known: dict[str, None] = {}
    for source in executed:
        try:
            body = ast.parse(source).body
        except SyntaxError:  # a magic of IPython's
            continue
        if source.startswith("# Parameters\n"):
            for node in body:
                for target in node.targets if isinstance(node, ast.Assign) else []:
                    if isinstance(target, ast.Name) and target.id not in known:
                        raise InputError(f"this notebook has no parameter {target.id!r}", choose(target.id, known))
        targets = (node.target for node in body if isinstance(node, ast.AnnAssign))
        known.update(dict.fromkeys(target.id for target in targets if isinstance(target, ast.Name)))


def _convert(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` where that is exact: "16" is an int, "1e-4" a float, "true" a bool, "1.5" no int."""
    if kind is str:
        return str(value)
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        raise InputError(f"parameter {name!r}: {value!r} is refused", f"give a value of type {kind.__name__}") from None
