"""Milliseconds until the playground in the page shows its first picture and its first reconstruction, and a stroke.

    make site && python benchmarks/playground.py --record benchmarks/playground.json

Opens docs/site/_build/html/docs/playground.html from disk in a headless Chromium, each time in a fresh profile without
cache. The first picture is the pair with its hidden patches, which needs no model; a stroke computes both sensors anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

HTML = Path(__file__).resolve().parents[1] / "docs" / "site" / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome")
STROKE = """async () => {
    const {pair, hidden} = playground.state(), start = performance.now();
    for (let i = 0; i < 10; i++) await playground.compute(pair, hidden);
    return (performance.now() - start) / 10;
}"""


def once(browser: Browser, page: Path) -> dict[str, float]:
    """One visit, in milliseconds after its beginning."""
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(page.as_uri())
    tab.evaluate("playground.ready")
    times = {name: tab.evaluate(f"playground.{name}") for name in ("firstPicture", "firstReconstruction")}
    times["stroke"] = tab.evaluate(STROKE)
    context.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--html", type=Path, default=HTML, help="the built site")
    parser.add_argument("--visits", type=int, default=10)
    parser.add_argument("--record", type=Path, help="write the numbers here, too")
    arguments = parser.parse_args()
    browser_path = next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = arguments.html.resolve() / "docs" / "playground.html"
        visits = [once(browser, page) for _ in range(arguments.visits)]
        version = browser.version
        browser.close()
    files = sum(path.stat().st_size for path in (arguments.html / "_static" / "playground").iterdir())
    result = {
        name: {"median_ms": round(statistics.median(v[name] for v in visits)),
               "range_ms": [round(min(v[name] for v in visits)), round(max(v[name] for v in visits))]}
        for name in visits[0]
    }  # fmt: skip
    where = {"chromium": version, "processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    report = {**result, "files_mb": round(files / 1e6, 1), "visits": len(visits), "machine": where}
    print(json.dumps(report, indent=2))
    if arguments.record:
        arguments.record.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
