"""Packages of the npm registry, by version and digest: fetched once without npm, read from their archive."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from fusmae_lite.core.errors import RunError
from fusmae_lite.core.files import write_bytes
from fusmae_lite.core.progress import line

CACHE = Path(__file__).resolve().parent / "_build" / "npm"
#: Name -> version, and the SHA-512 of its archive as the registry states it.
PACKAGES = {
    "onnxruntime-web": (
        "1.30.0",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    ),
    "axe-core": ("4.14.1", "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="),
}


def registry() -> str:
    """The registry that npm asks: ``npm_config_registry``, else that of ``~/.npmrc``, else npm's own."""
    file = Path.home() / ".npmrc"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    stated = re.search(r"^registry\s*=\s*[\"']?([^\s\"']+)", text, re.M)
    named = {name.lower(): value for name, value in os.environ.items()}.get("npm_config_registry")
    return (named or (os.path.expandvars(stated[1]) if stated else "https://registry.npmjs.org")).rstrip("/")


def archive(name: str) -> Path:
    """The archive of a package, from the cache or the registry; RunError where neither has it, or has another."""
    version, digest = PACKAGES[name]
    path = CACHE / f"{name}-{version}.tgz"
    if not (path.is_file() and _digest(path.read_bytes()) == digest):
        line(f"fetching {name} {version} from {registry()}")
        content = _fetch(name, version)
        if _digest(content) != digest:
            raise RunError(f"{name} {version} of {registry()} is not the archive that is expected (SHA-512 differs)")
        write_bytes(path, content)
    return path


def read(name: str, member: str) -> bytes:
    """One file of a package."""
    with tarfile.open(archive(name)) as tar:
        return tar.extractfile(f"package/{member}").read()


def _fetch(name: str, version: str) -> bytes:
    """By HTTP; where that fails by npm, which knows of proxies and passwords that we do not."""
    try:
        with urllib.request.urlopen(f"{registry()}/{name}/-/{name}-{version}.tgz", timeout=60) as answer:
            return answer.read()
    except (OSError, ValueError) as error:
        reason = f"{name} {version} could not be fetched from {registry()} ({error})"
    if npm := shutil.which("npm"):
        with tempfile.TemporaryDirectory() as folder:
            command = [npm, "pack", f"{name}@{version}", "--silent", "--pack-destination", folder]
            done = subprocess.run(command, capture_output=True, timeout=120)
            if done.returncode == 0 and (files := list(Path(folder).glob("*.tgz"))):
                return files[0].read_bytes()
    raise RunError(reason)


def _digest(content: bytes) -> str:
    return base64.b64encode(hashlib.sha512(content).digest()).decode()
