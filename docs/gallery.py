"""Take the README's pictures from the stored notebooks: the figure of each cell tagged ``gallery`` or ``hero``.

python docs/gallery.py
"""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]


def pictures(path: Path) -> dict[str, bytes]:
    """Tag -> PNG of the first figure below a cell with that tag."""
    found: dict[str, bytes] = {}
    for cell in nbformat.read(path, as_version=4).cells:
        for tag in {"gallery", "hero"} & set(cell.metadata.get("tags", [])):
            figures = [o["data"]["image/png"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
            if figures:
                found.setdefault(tag, base64.b64decode(figures[0]))
    return found


def main() -> None:
    folder = ROOT / "docs" / "gallery"
    folder.mkdir(exist_ok=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        found = pictures(path)
        if "gallery" not in found:
            print(f"{path.name}: no figure below a cell tagged gallery")
        for tag, png in found.items():
            target = folder / (f"{path.stem}.png" if tag == "gallery" else "hero.png")
            target.write_bytes(png)
            print(f"{target.relative_to(ROOT)}: {len(png) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
