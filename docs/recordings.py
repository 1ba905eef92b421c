"""Records what each command prints, in a terminal and in a file: its first and last ten lines, into docs/recordings.md.

    python docs/recordings.py [--only doctor,pretrain] [--before CHECKOUT]

`--before` also records the commands of an earlier checkout. Recordings of other commands on the page stay.
"""

import argparse
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fusmae_lite.core.files import write_text

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "recordings.md"
SHOWN = 10
COMMANDS = {
    "doctor": "doctor",
    "pretrain": "pretrain -p epochs=20 -p run_dir=FOLDER/run",
    "encode": "encode data_samples FOLDER/lmdb",
    "synthesise": "synthesise FOLDER/made --pairs 1200",
    "export": "export xae-lite --format timm --sensors s2 --output FOLDER/vit.safetensors",
    "evaluate": "evaluate --weights xae-lite -p run_dir=FOLDER/run",
    "course": "course --only 03 --run-dir FOLDER/course",
}
START = """# What each command prints

Made by `python docs/recordings.py` (after `source .venv/bin/activate`); FOLDER stands for a new folder. First and
last ten lines; of a bar in a terminal the last state. On two busy processors: the seconds say nothing of speed.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(COMMANDS))
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    given = parser.parse_args()
    old = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    kept = {part.partition("\n")[0]: part for part in re.split(r"^## ", old, flags=re.M)[1:]}
    for name in given.only.split(","):
        words, parts = COMMANDS[name], [name, f"`fusmae {COMMANDS[name]}`"]
        for title, root in (("Before", given.before), ("", ROOT)):
            if root:
                for place, terminal in (("in a terminal", True), ("in a file", False)):
                    heading = f"{title}, {place}" if title else place.capitalize()
                    parts.append(f"{heading}:\n\n```text\n{record(words, root, terminal)}\n```")
        kept[name] = "\n\n".join(parts) + "\n"
    write_text(PAGE, START + "".join(f"\n## {kept[name].strip()}\n" for name in COMMANDS if name in kept))


def record(words: str, root: Path, terminal: bool) -> str:
    """What a command of a checkout prints, without names of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, "-m", "fusmae_lite.course.cli", *words.replace("FOLDER", folder).split()]
        environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "100"}
        if terminal:
            text = in_terminal(arguments, root, environment)
        else:
            done = subprocess.run(
                arguments, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            text = done.stdout.decode(errors="replace")
        for path, name in ((os.path.realpath(folder), "FOLDER"), (folder, "FOLDER"), (str(root), "CHECKOUT")):
            text = text.replace(path, name)
    lines = [drawn(line) for line in text.replace("\r\n", "\n").split("\n")]
    lines = [line[:160] for line in lines if line.strip()]
    return "\n".join(lines if len(lines) <= 2 * SHOWN else [*lines[:SHOWN], "...", *lines[-SHOWN:]])


def in_terminal(arguments: list[str], root: Path, environment: dict[str, str]) -> str:
    """Everything that goes to a terminal of its own."""
    own, theirs = pty.openpty()
    process = subprocess.Popen(
        arguments, cwd=root, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(own, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        said += part
    process.wait()
    os.close(own)
    return said.decode(errors="replace")


def drawn(line: str) -> str:
    """A line as it stands at last: the last state of a bar that was drawn over itself, without colours."""
    line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\r", line)
    states = [state for state in line.split("\r") if state.strip()]
    return (states or [""])[-1].rstrip()


if __name__ == "__main__":
    main()
