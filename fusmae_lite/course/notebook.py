"""What the notebooks of the course share: how one begins, and where its numbers go."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import read_object, write_text
from fusmae_lite.course.parameters import refuse_injected

if TYPE_CHECKING:
    from fusmae_lite.data.archives import Archive

#: Where results go when a notebook's `run_dir` is empty; tests and ``make notebooks`` set it to keep runs/ untouched.
RUN_DIR_VARIABLE = "FUSMAE_RUN_DIR"


def begin(notebook: str, preset: str = "smoke", **parameters: Any) -> tuple[RunConfig, Archive]:
    """Check a notebook's parameters, open the archive and seed torch; prints one line of versions, device and seed.

    Args:
        notebook: number of the notebook, ``"05"``.
        preset: smoke, laptop or paper.
        parameters: fields of :class:`RunConfig`; ``""`` and ``-1`` mean "as the preset says".

    Raises:
        InputError: one line that names the parameter, or the data folder, and the cure; also for a parameter that
            papermill injected and the notebook does not have.
    """
    import torch

    from fusmae_lite.data.archives import open_data
    from fusmae_lite.train.optimise import choose_device

    if shell := "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        refuse_injected(shell.user_ns.get("In", []))
    if not parameters.get("run_dir"):  # after -p run_dir=..., and before runs/<preset>
        parameters["run_dir"] = os.environ.get(RUN_DIR_VARIABLE, "")
    config = load_preset(preset, **parameters)
    device = choose_device(config).type
    archive = open_data(config)
    metrics_file(config, notebook).unlink(missing_ok=True)  # numbers of an earlier run are not this run's
    torch.manual_seed(config.seed)
    print(
        f"notebook {notebook}, preset {config.preset}, seed {config.seed}, {len(archive)} {archive.kind_of_pairs}, "
        f"{device}, torch {torch.__version__}, Python {platform.python_version()}"
    )
    return config, archive


def record(config: RunConfig, notebook: str, **numbers: Any) -> Path:
    """Add numbers to the notebook's part of metrics.json, ``<run folder>/metrics/<notebook>.json``.

    Args:
        config: of the run; decides the folder.
        notebook: ``"05"``.
        numbers: name = value; numbers, strings, lists and dicts of them, NumPy and torch scalars.

    Raises:
        InputError: a value that JSON cannot hold.
    """
    path = metrics_file(config, notebook)
    known = read_object(path, "remove it") if path.is_file() else {}
    write_json(path, {**known, **numbers})
    return path


def metrics_file(config: RunConfig, notebook: str) -> Path:
    """Where :func:`record` keeps the numbers of one notebook."""
    return config.folder() / "metrics" / f"{notebook}.json"


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it. NaN and infinity become null."""
    try:
        text = json.dumps(_plain(value), indent=2, allow_nan=False)
    except TypeError as error:
        raise InputError(f"{path.name}: {error}", "record numbers, strings, and lists or dicts of them") from None
    write_text(path, text + "\n")


def _plain(value: Any) -> Any:
    """NumPy and torch values as Python's own; non-finite floats as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
