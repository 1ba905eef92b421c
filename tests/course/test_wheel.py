"""The wheel, installed into an empty folder: it holds every data file of the package, and each can be used there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fusmae_lite.core.config import project_root

pytestmark = pytest.mark.slow
PACKAGES = [project_root() / name for name in ("fusmae_lite", "reproduce")]
#: Run from elsewhere. Whatever is a preset, a plan or a model in the wheel is loaded: none is named here.
USE = """\
import sys
from pathlib import Path
import fusmae_lite
import reproduce
from fusmae_lite import load_preset, load_pretrained, open_archive
from fusmae_lite.course import cli, pages
from reproduce.plan import load_plan
from fusmae_lite.data.synthetic import scene

package, results = Path(fusmae_lite.__file__).parent, Path(reproduce.__file__).parent
assert package.parent == results.parent == Path(sys.argv[1]).resolve(), (package, results)
used = [f"preset {load_preset(path.stem).preset}" for path in package.glob("core/presets/*.toml")]
used += [f"plan {load_plan(path.stem).preset}" for path in results.glob("plans/*.toml")]
for path in package.glob("weights/*.safetensors"):
    load_pretrained(path.stem)
    used.append(f"weights {path.stem}")
metrics = {"notebooks": {}, "preset": "smoke", "machine": {"summary": "none"}}
pages.write_index(Path.cwd(), [], metrics)
assert "0 of 0 notebooks" in Path("index.html").read_text(encoding="utf-8")
assert len(scene.load()["classes"]) > 10
print(*sorted(used), sep="\\n")
try:
    open_archive()
except fusmae_lite.InputError as error:
    print(error)
sys.exit(cli.main(["course", "--preset", "smoke"]))
"""


def data_files(folder: Path) -> set[str]:
    """Everything below the packages in a folder that is no Python, by its path."""
    below = (path for package in PACKAGES for path in (folder / package.name).rglob("*") if path.is_file())
    paths = (path.relative_to(folder) for path in below)
    return {path.as_posix() for path in paths if path.suffix not in (".py", ".pyc") and not path.name.startswith(".")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder a wheel of this checkout was installed into, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for package in PACKAGES:
        shutil.copytree(package, source / package.name)  # with __pycache__: what lies about is not to be packed
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project_root() / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = [*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", folder / "wheels", source]
    subprocess.run(built, check=True)
    (wheel,) = (folder / "wheels").glob("*.whl")
    subprocess.run([*pip, "install", "--no-index", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def test_every_data_file_is_in_the_wheel_and_nothing_else(installed: Path) -> None:
    expected = data_files(project_root())
    assert "reproduce/plans/laptop.toml" in expected
    assert {f"fusmae_lite/{name}" for name in ("weights/xae-lite.safetensors", "course/index.html")} <= expected
    assert data_files(installed) == expected


def test_every_data_file_is_used_from_there(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(installed)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr  # the course wants its notebooks
    *used, refusal = done.stdout.splitlines()
    files = {"preset": "fusmae_lite/core/presets/*.toml", "plan": "reproduce/plans/*.toml"}
    for kind, known in {**files, "weights": "fusmae_lite/weights/*.s*"}.items():
        names = sorted(f"{kind} {path.stem}" for path in project_root().glob(known))
        assert names == [name for name in used if name.startswith(kind)]
    assert len(used) > 6 and (installed / "bin" / "fusmae").is_file()
    assert refusal.startswith("no data_samples folder in") and "clone" in refusal and "clone" in done.stderr
