"""How a command ends: a status, and one line for whatever a user can mend."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable

from fusmae_lite.core.errors import InputError, RunError, Terminated, stop


def exit_status(run: Callable[..., int | None], *arguments: object, **options: object) -> int:
    """Call a function; an error that a user can mend becomes one line on stderr."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
    try:
        status = run(*arguments, **options) or 0
        sys.stdout.flush()
        return status
    except Terminated:
        return _fail(143, "terminated; the same command continues")
    except KeyboardInterrupt:
        return _fail(130, "interrupted; the same command continues")
    except InputError as error:
        return _fail(2, error)
    except RunError as error:
        return _fail(1, error)
    except OSError as error:
        if error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC):  # nor may Python try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:  # the reader, as `head`, has seen enough
            return 1
        place = error.filename or "the output"
        return _fail(1, RunError(f"{place}: {error.strerror or error}; free space there, or choose another place"))
    except RuntimeError as error:
        if "home directory" not in str(error):  # pathlib's, for ~nobody
            raise
        return _fail(2, InputError(f"a path begins with ~ and no user of that name: {error}", "write the path out"))


def _fail(status: int, why: object) -> int:
    print(f"error: {why}", file=sys.stderr)
    return status
