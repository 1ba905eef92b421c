"""pyproject.toml, environment.yml, constraints.txt and what is installed agree."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fusmae_lite.core.config import project_root

#: conda-forge's name -> PyPI's, where they differ.
CONDA = {"pytorch": "torch", "matplotlib-base": "matplotlib", "python-lmdb": "lmdb", "playwright-python": "playwright"}
ROOT = project_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WANTED = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)


def test_conda_environment_is_that_of_pyproject() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    conda = [Requirement(line) for line in yaml.safe_load(text)["dependencies"]]
    ranges = {canonicalize_name(CONDA.get(r.name, r.name)): str(r.specifier) for r in conda}
    assert ranges.pop("python") == PROJECT["requires-python"]
    ranges.pop("pip")
    assert ranges == {canonicalize_name(r.name): str(r.specifier) for r in WANTED}
    packages = [line for line in text.splitlines() if re.match(r"  - \w+.*", line) and "conda-forge" not in line]
    assert all(re.search(r" # \w+", line) for line in packages), "a comment for each package"


@pytest.mark.parametrize("requirement", WANTED, ids=lambda requirement: requirement.name)
def test_pin_lies_in_the_range_and_is_installed(requirement: Requirement) -> None:
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)
    installed = version(requirement.name).split("+")[0]
    assert requirement.specifier.contains(installed), f"{requirement.name} {installed} is installed"


def test_constraints_are_exact_and_sorted() -> None:
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in PINS)
    assert list(PINS) == sorted(PINS)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in ("torch", "torchvision"):
        assert f"{name}=={PINS[name]}" in makefile, "the pair that make installs first is the pinned one"


def test_citation_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
