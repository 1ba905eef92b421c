"""One process of several that :func:`fusmae_lite.distributed.launch` starts: ``python -m fusmae_lite.worker JSON``."""

from __future__ import annotations

import sys

from fusmae_lite.config import RunConfig
from fusmae_lite.errors import InputError, RunError
from fusmae_lite.pretrain import pretrain


def main(text: str) -> int:
    """Run what the JSON text configures. Exit status 1 after one line on stderr if it cannot."""
    try:
        pretrain(RunConfig.model_validate_json(text))
    except (InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
