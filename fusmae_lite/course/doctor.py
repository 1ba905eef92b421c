"""What this machine has and what would run on it: for ``fusmae doctor``, and for metrics.json."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
import torch

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives import open_data
from fusmae_lite.data.loader import processors
from fusmae_lite.train.optimise import choose_device, has_fast_bf16, uses_bf16

PACKAGES = ("torch", "torchvision", "timm", "numpy", "rasterio", "safetensors", "papermill", "jupyterlab")


def machine() -> dict[str, Any]:
    """Versions, device, cores and memory; ``summary`` says it in one line. Names no host, user or path."""
    device, cores, packages = choose_device(RunConfig()), processors(), {}
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{cores} {platform.machine()} cores"
    for package in PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = "missing"
    return {
        "summary": f"{name}, torch {torch.__version__}",
        "python": platform.python_version(),
        "packages": packages,
        "device": device.type,
        "device_name": name,
        "fast_bf16": has_fast_bf16(device),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def report(config: RunConfig) -> tuple[list[str], bool]:
    """Lines about the machine, the data, the weights and the configured run; and whether it could run."""
    from fusmae_lite.systems.weights import shipped_weights

    facts, lines, good = machine(), {}, True
    for name, say in {"data": _data, "results": lambda config: str(config.folder()), "device": _device}.items():
        try:
            lines[name] = say(config)
        except InputError as error:
            lines[name], good = f"no device ({error})" if name == "device" else str(error), False
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    weights = ", ".join(f"{name} ({path.stat().st_size / 1e6:.1f} MB)" for name, path in shipped_weights().items())
    return [
        f"python    {facts['python']}, {platform.system()} {platform.machine()}",
        f"packages  {packages}",
        f"machine   {facts['cores']} cores, {facts['memory_gib']} GiB memory, device {facts['device_name']}",
        f"data      {lines['data']}",
        f"weights   {weights or 'none shipped'}",
        f"results   {lines['results']}",
        f"would run preset {config.preset} on {lines['device']}: {config.fusion}, width {config.width}, depth "
        f"{config.depth}, {config.epochs} epochs of batch {config.batch_size}",
    ], good


def _device(config: RunConfig) -> str:
    device = choose_device(config)
    return f"{device.type} in {'bf16' if uses_bf16(device, config) else 'fp32'}"


def _data(config: RunConfig) -> str:
    """What lies in the data folder, without reading pixels or labels."""
    archive = open_data(config)
    try:
        counts = ", ".join(f"{len(archive.split(name))} {name}" for name in ("train", "val", "test"))
    except InputError as error:
        what, cure = error.parts
        raise InputError(f"{len(archive)} {archive.kind_of_pairs} of {archive.kind}, but {what}", cure) from None
    left_out = f"; {archive.said_left_out}" if archive.left_out else ""
    return f"{len(archive)} {archive.kind_of_pairs} ({counts}) of {archive.kind} in {archive.root}{left_out}"
