"""What the notebooks of the course share: how one begins, and where its numbers go."""

import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.errors import InputError, choose
from fusmae_lite.core.files import read_object, write_text

if TYPE_CHECKING:
    from fusmae_lite.data.archives import Archive

#: Where results go when a notebook's `run_dir` is empty; tests and ``make notebooks`` set it to keep runs/ untouched.
RUN_DIR_VARIABLE = "FUSMAE_RUN_DIR"
#: Pairs that a notebook keeps in memory, decoded: most of its cells look at the same ones.
FEW = 256


def begin(notebook: str, preset: str = "smoke", **parameters: Any) -> tuple[RunConfig, "Archive"]:
    """Check the parameters of a notebook (``"05"``), open the archive, seed torch; prints one line on all of it.

    `parameters` are fields of :class:`RunConfig`; ``""`` and ``-1`` mean "as the preset says". Raises
    :class:`InputError`, also for a parameter that papermill injected and the notebook does not have.
    """
    import torch
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    from fusmae_lite.data.archives import open_data
    from fusmae_lite.data.archives.base import SPLITS
    from fusmae_lite.data.archives.splits import with_random_split
    from fusmae_lite.train.optimise import choose_device

    if shell := "IPython" in sys.modules and sys.modules["IPython"].get_ipython():
        refuse_injected(shell.user_ns.get("In", []))
        set_matplotlib_formats("retina")  # figures at twice the pixels of the width they are shown at
    if not parameters.get("run_dir"):  # after -p run_dir=..., and before runs/<preset>
        parameters["run_dir"] = os.environ.get(RUN_DIR_VARIABLE, "")
    config = load_preset(preset, **parameters)
    device = choose_device(config).type
    archive = open_data(config)
    missing = [name for name in SPLITS if name not in archive.splits]
    if missing:
        config = config.model_copy(update={"split": "random"})
        archive = with_random_split(archive, config.seed)
    if len(archive) <= FEW:
        archive.remember()
    metrics_file(config, notebook).unlink(missing_ok=True)  # numbers of an earlier run are not this run's
    torch.manual_seed(config.seed)
    print(
        f"notebook {notebook}, preset {config.preset}, seed {config.seed}, {len(archive)} {archive.kind_of_pairs}, "
        f"{device}, torch {torch.__version__}, Python {platform.python_version()}"
    )
    if config.data_dir:
        print("The text tells what the bundled pairs show; this archive's pictures and numbers may say otherwise.")
    if missing:
        print(
            f"This archive has no {' and no '.join(missing)} split. For the course all its pairs are split at random, "
            "by the seed, so a test pair may lie beside a training pair."
        )
    return config, archive


def refuse_injected(executed: Sequence[str]) -> None:
    """Raise InputError for a parameter that papermill injected and no cell declares as ``name: type = literal``.

    papermill only warns of it, and a misspelt parameter would train the default. `executed` are the sources of the
    cells run so far, IPython's ``In``.
    """
    declared = re.findall(r"^(\w+): *\w+ *=", "\n".join(executed), re.M)
    for source in executed:
        for name in re.findall(r"^(\w+) *=", source, re.M) if source.startswith("# Parameters\n") else ():
            if name not in declared:
                raise InputError(f"this notebook has no parameter {name!r}", choose(name, declared))


def record(config: RunConfig, notebook: str, **numbers: Any) -> Path:
    """Add numbers to a notebook's part of metrics.json; returns its file, ``<run folder>/metrics/<notebook>.json``.

    Values are numbers, strings, NumPy and torch ones, and lists and dicts of them; :class:`InputError` for others.
    """
    path = metrics_file(config, notebook)
    return write_json(path, {**(read_object(path, "remove it") if path.is_file() else {}), **numbers})


def metrics_file(config: RunConfig, notebook: str) -> Path:
    """Where :func:`record` keeps the numbers of one notebook."""
    return config.folder() / "metrics" / f"{notebook}.json"


def write_json(path: Path, value: Any) -> Path:
    """Write JSON in one step. NumPy and torch values become Python's own, NaN and infinity null."""
    try:
        text = json.dumps(value, default=lambda array: array.tolist())
    except (TypeError, AttributeError) as error:  # neither JSON's nor an array
        raise InputError(f"{path.name}: {error}", "record numbers, strings, and lists or dicts of them") from None
    return write_text(path, json.dumps(json.loads(text, parse_constant=lambda _: None), indent=2) + "\n")
