"""The shipped models' held-out losses stand in their card; whoever quotes them quotes the card."""

from __future__ import annotations

import re

import nbformat
import pytest

from fusmae_lite.core.config import project_root

ROOT = project_root()
CARD = (ROOT / "fusmae_lite" / "weights" / "README.md").read_text(encoding="utf-8")
ROW = r"^\| {name}[^|]*\| (\d\.\d+) \| (\d\.\d+) \|"
LOSSES = {name: re.search(ROW.format(name=name), CARD, re.M).groups() for name in ("xae-lite", "xad-lite")}
MEAN = re.search(ROW.format(name="each band's training mean"), CARD, re.M).groups()


def outputs(number: str) -> str:
    """What the cells of a notebook printed."""
    path = next((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_readme_has_the_rows_of_the_card():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, losses in LOSSES.items():
        found = re.findall(rf"`{name}`.*?\| (\d\.\d+) \| (\d\.\d+) \|$", readme, re.M)
        assert found == [losses], f"README and the card differ on {name}"
    assert f"mean | {MEAN[0]} | {MEAN[1]} |" in readme


def test_notebook_00_measures_what_the_card_says():
    text = outputs("00")
    for sensor, loss, mean in zip(("s1", "s2"), LOSSES["xae-lite"], MEAN, strict=True):
        assert f"{sensor}: model {loss}, band average {mean}" in text


def test_notebook_05_ends_where_the_card_says():
    text = outputs("05")
    for name, losses in LOSSES.items():
        for sensor, loss in zip(("s1", "s2"), losses, strict=True):
            assert re.search(rf"{name[:3]} {sensor}: .* at the end {loss}$", text, re.M), f"05 and the card: {name}"


@pytest.mark.parametrize("number", ["00", "04"])
def test_prose_quotes_the_card(number: str):
    path = next((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
    prose = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    quoted = re.findall(r"`xae-lite` has (\d\.\d{3}) and (\d\.\d{3})", prose)
    assert all(pair == LOSSES["xae-lite"] for pair in quoted), f"{path.name} quotes {quoted}"
    assert quoted or "weights/README.md" in prose or "README.md#results" in prose
