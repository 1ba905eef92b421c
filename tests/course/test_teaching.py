"""Lesson plans that fit their hours and name sections that exist; slides by rule, shown without a network."""

import json
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fusmae_lite.core.config import project_root

ROOT = project_root()
PAGE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SLIDES = runpy.run_path(str(ROOT / "docs" / "slides.py"))


def rows(plan: str) -> list[list[str]]:
    table = PAGE.split(f"## {plan}\n")[1].split("\n## ")[0]
    lines = [line for line in table.splitlines() if re.match(r"\| \d", line)]
    return [[field.strip() for field in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(("plan", "least", "most"), [("Two hours", 115, 120), ("One day", 420, 480)])
def test_a_plan_fits_its_hours(plan: str, least: int, most: int) -> None:
    assert least <= sum(int(row[0]) for row in rows(plan)) <= most


@pytest.mark.parametrize("plan", ["Two hours", "One day"])
def test_sections_exist_and_reading_times_are_those_measured(plan: str) -> None:
    measured = dict(re.findall(r"\[(\d\d)_.*\| (\d+) \|\n", (ROOT / "docs" / "notebooks.md").read_text("utf-8")))
    for row in (row for row in rows(plan) if row[1]):
        number = row[1][1:3]
        (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
        prose = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
        headings = set(re.findall(r"^#+ (?:\d+\. )?(.*)", prose, re.M))
        sections = re.findall(r"\*([^*]+)\*", row[2])
        assert sections and set(sections) <= headings, set(sections) - headings
        assert abs(int(row[4]) - int(measured[number])) <= 8, (number, measured[number])


def notebook() -> nbformat.NotebookNode:
    picture = new_output("display_data", {"image/png": "iVBORw0KGgo="})
    return new_notebook(
        cells=[
            new_markdown_cell("# 00 · Title\n\nA [promise](x.ipynb)."),
            new_code_cell("1", outputs=[picture, new_output("stream", text="no picture")]),
            new_markdown_cell(
                "Prose.\n\n## One\n\nFirst.\n\n$$a$$\n\nSecond.\n\n> **Predict, then run.** What?"
                "\n\n<details><summary>Answer</summary>\n\nThat.\n\n</details>"
            ),
            new_markdown_cell("> **Pitfall.** Not so.\n\nMore."),
            new_code_cell("2", outputs=[]),
            new_markdown_cell("## References\n\n- A paper\n\n**Predict, then run.** no"),
            new_code_cell("3", outputs=[picture]),
        ]
    )


def test_slides_are_headings_questions_pitfalls_and_pictures() -> None:
    deck = SLIDES["slides"](notebook())
    assert [cell.source for cell in deck.cells] == [
        "# 00 · Title\n\nA promise.",
        "# 00 · Title\n\n![00 · Title](attachment:picture.png)",
        "## One\n\nFirst.\n\n$$a$$",
        "## One\n\n> **Predict, then run.** What?",
        "## One\n\n> **Pitfall.** Not so.",
    ]
    assert deck.cells[1].attachments["picture.png"]["image/png"] == "iVBORw0KGgo="


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_decks_show_every_formula_and_picture_and_ask_no_network(tmp_path: Path) -> None:
    pytest.importorskip("sphinx-mathjax-offline")
    from playwright.sync_api import sync_playwright

    SLIDES["main"](tmp_path, "")
    decks = sorted(tmp_path.glob("*.html"))
    assert [deck.stem for deck in decks] == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page, complaints = browser.new_page(viewport={"width": 1280, "height": 720}), []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url[:80]))
        for deck in decks:
            page.goto(deck.as_uri())
            page.evaluate("MathJax.startup.promise")
            assert page.locator("[data-mml-node=merror]").count() == 0
            assert not page.evaluate("[...document.images].some(i => !(i.complete && i.naturalWidth))")
            count = page.evaluate("slides.length")
            assert page.locator("output").inner_text() == f"1 / {count}" and count > 10
            page.keyboard.press("End")
            page.get_by_label("back").click()
            assert page.locator("output").inner_text() == f"{count - 1} / {count}"
            assert page.locator("main > section.shown").count() == 1 and page.url.endswith(f"#{count - 1}")
            if folder := os.environ.get("FUSMAE_SCREENSHOTS"):
                page.screenshot(path=Path(folder) / f"slides-{deck.stem}.png")
        browser.close()
    assert [text for text in complaints if not text.startswith("data:")] == []


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize("index", ["", "https://index.example/cpu"])
def test_torch_comes_from_the_index_that_is_named(tmp_path: Path, index: str) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    command = ["make", "-n", "-C", str(tmp_path), "setup", *([f"TORCH_INDEX={index}"] if index else [])]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first, second = (line for line in said.splitlines() if "if [ -t 1 ]" in line)
    assert "torch==2" in first and first.count(f"--extra-index-url {index}") == (2 if index else 0)
    assert ("--extra-index-url" in first) == bool(index) and "--extra-index-url" not in second


def test_the_container_sets_up_by_a_rule_that_exists() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    rule, variable = container["postCreateCommand"].split()[1:]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"\n{rule}: " in makefile and f"$({variable.split('=')[0]})" in makefile
