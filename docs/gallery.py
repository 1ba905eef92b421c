"""Take the README's pictures from the stored notebooks: the figure of each cell tagged ``gallery`` or ``hero``.

python docs/gallery.py
"""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "gallery"


def pictures(path: Path) -> dict[str, bytes]:
    """Tag -> PNG of the first figure below a cell with that tag."""
    found: dict[str, bytes] = {}
    for cell in nbformat.read(path, as_version=4).cells:
        for tag in {"gallery", "hero"} & set(cell.metadata.get("tags", [])):
            figures = [o["data"]["image/png"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
            if figures:
                found.setdefault(tag, base64.b64decode(figures[0]))
    return found


def gallery() -> dict[Path, bytes]:
    """File -> PNG: one of each notebook, named after it, and hero.png."""
    return {
        FOLDER / (f"{path.stem}.png" if tag == "gallery" else "hero.png"): png
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
        for tag, png in pictures(path).items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for target, png in gallery().items():
        target.write_bytes(png)
        print(f"{target.relative_to(ROOT)}: {len(png) / 1e3:.0f} kB")
