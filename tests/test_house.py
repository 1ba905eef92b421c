"""The plan of the house: rooms in one order, each importing only from those before it."""

from __future__ import annotations

import ast
from pathlib import Path

import fusmae_lite

ROOMS = ["core", "data", "model", "systems", "train", "evaluation", "show", "course"]
PACKAGE = Path(fusmae_lite.__file__).parent


def imported(path: Path) -> set[str]:
    """Dotted names of this project's modules that a file imports, wherever in the file."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {
        f"{node.module}.{alias.name}" if node.module in ("fusmae_lite", "reproduce") else node.module
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    return {name for name in whole | parts if name.split(".")[0] in ("fusmae_lite", "reproduce")}


def test_every_module_has_a_room():
    stray = [
        path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in [*ROOMS, "__init__.py"]
    ]
    assert not stray


def test_rooms_import_only_from_rooms_before_them():
    against = []
    for room in ROOMS:
        allowed = ROOMS[: ROOMS.index(room) + 1]
        for path in (PACKAGE / room).rglob("*.py"):
            for name in imported(path):
                parts = name.split(".")
                if parts[0] == "reproduce" or (len(parts) > 1 and parts[1] not in [*allowed, "__version__"]):
                    against.append(f"{path.relative_to(PACKAGE)} -> {name}")
    assert not against


def test_no_circle_of_files():
    files = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.glob("*/**/*.py")
    }
    arrows = {name: imported(path) & set(files) for name, path in files.items()}
    while leaves := [name for name, to in arrows.items() if not to & set(arrows)]:
        for name in leaves:
            del arrows[name]
    assert not arrows, f"these import each other, or what does: {sorted(arrows)}"


def test_public_names():
    names = {
        "S1", "S2", "FusMAE", "InputError", "Latents", "Modality", "ModelConfig", "PairDataset", "Reconstruction",
        "RunConfig", "RunError", "evaluate", "load_preset", "load_pretrained", "open_archive", "pretrain",
    }  # fmt: skip
    assert names == set(fusmae_lite.__all__)
    assert all(callable(getattr(fusmae_lite, name)) or name in ("S1", "S2") for name in names)
