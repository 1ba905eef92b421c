"""README's example prints what README says."""

from __future__ import annotations

import contextlib
import io
import re

from fusmae_lite.core.config import project_root


def test_the_library_example_prints_what_readme_says() -> None:
    readme = (project_root() / "README.md").read_text(encoding="utf-8")
    source, expected = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", readme, re.S).groups()
    assert 8 <= len([row for row in source.splitlines() if row]) <= 14
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "README.md", "exec"), {})
    assert printed.getvalue() == expected
