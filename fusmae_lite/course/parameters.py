"""Parameters of the course: which exist, of what type, and whether the values fit. Checked before anything runs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fusmae_lite.core.architecture import Folder
from fusmae_lite.core.config import UNSET, RunConfig, fields_that, load_preset
from fusmae_lite.core.errors import InputError, choose

TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}  # that a parameters cell may declare


def find_notebooks(folder: Path, only: Iterable[str] = ()) -> list[Path]:
    """Notebooks ``NN_name.ipynb`` of a folder in their order, or those with the numbers in `only`."""
    notebooks = {path.name[:2]: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not notebooks:
        raise InputError(f"no notebooks in {folder}", "work in a clone of the repository (pip install -e .)")
    numbers = sorted({str(number).zfill(2) for number in only} or notebooks)
    for number in numbers:
        if number not in notebooks:
            raise InputError(f"no notebook {number!r} in {folder}", choose(number, notebooks))
    return [notebooks[number] for number in numbers]


def declared(notebook: Path) -> dict[str, type]:
    """Names and types in the cell tagged ``parameters``: one ``name: type = literal  # help`` a line."""
    from papermill import inspect_notebook  # slow to import, and only the runner needs it

    kinds = {name: cell["inferred_type_name"] for name, cell in inspect_notebook(escaped(notebook)).items()}
    if not kinds:
        raise InputError(f"{notebook.name} declares no parameters", "tag one cell 'parameters', `name: int = 5` a line")
    for name, kind in kinds.items():
        if kind not in TYPES:
            what = f"{notebook.name}: parameter {name!r} has no type the course knows"
            raise InputError(what, f"write `{name}: {' | '.join(TYPES)} = ...` with one of these types")
    return {name: TYPES[kind] for name, kind in kinds.items()}


def escaped(path: Path) -> str:
    """A path for papermill, which takes braces for placeholders."""
    return str(path).replace("{", "{{").replace("}", "}}")


def check(
    values: Mapping[str, Any], notebooks: Mapping[str, Mapping[str, type]], chosen: Iterable[str] | None = None
) -> tuple[RunConfig, dict[str, dict[str, Any]]]:
    """The configuration of a run, and for each notebook the values that it declares, in its types.

    `values` are text or typed, and ``""`` and ``-1`` mean "as the preset says"; `notebooks` says what each declares,
    `chosen` which will run (default: all). Raises :class:`InputError` for a name that none of them declares, or a value
    of the wrong type.
    """
    names = list(dict.fromkeys(name for types in notebooks.values() for name in types))
    values = {name: value for name, value in values.items() if name == "preset" or value not in UNSET}
    running = list(notebooks if chosen is None else chosen)
    for name in values:
        if name not in names:
            raise InputError(f"unknown parameter {name!r}", choose(name, names))
        if not any(name in notebooks[notebook] for notebook in running):
            others = ", ".join(notebook[:2] for notebook, types in notebooks.items() if name in types)
            what = f"parameter {name!r} does not exist in notebook {', '.join(stem[:2] for stem in running)}"
            raise InputError(what, f"leave it out, or run a notebook that has it: {others}")
    for name in fields_that(Folder) & values.keys():  # relative to the caller, while notebooks run in their own folder
        values[name] = str(Path(values[name]).expanduser().resolve())
    config = load_preset(**{name: value for name, value in values.items() if name in RunConfig.model_fields})
    return config, {
        notebook: {name: _convert(name, values[name], kind) for name, kind in types.items() if name in values}
        for notebook, types in notebooks.items()
    }


def _convert(name: str, value: Any, kind: type) -> Any:
    """`value` as `kind` where that is exact: "16" is an int, "1e-4" a float, "true" a bool, "1.5" no int."""
    try:
        return str(value) if kind is str else TypeAdapter(kind).validate_python(value)
    except ValidationError:
        raise InputError(f"parameter {name!r}: {value!r} is refused", f"give a value of type {kind.__name__}") from None


def parse(assignments: Iterable[str]) -> dict[str, str]:
    """``name=value`` texts of the command line as a dict; each name once, each with a value."""
    values: dict[str, str] = {}
    for text in assignments:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise InputError(f"parameter {text!r} is refused", "write -p name=value")
        if value in UNSET:  # these have their meaning in a notebook's parameters cell only
            raise InputError(f"parameter {name!r}: {value!r} says nothing", "leave it out to take the preset's value")
        if values.setdefault(name, value) != value:
            raise InputError(f"parameter {name!r} is given twice, {values[name]!r} and {value!r}", "give it once")
    return values
