"""Files that hold code for the GPU: read only where nobody but this user can have written, and written at once."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from feature_matcher_ros.errors import OutputError, RuntimeLoadError

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def require_own(path: Path) -> None:
    """Check that nobody but this user, or root, can have put something there.

    Raises:
        RuntimeLoadError: others may write there, or it is missing.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise RuntimeLoadError(f"the engine {path} is missing: build it again.") from error
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & _OTHERS_MAY_WRITE:
        raise RuntimeLoadError(
            f"{path} may be written by others than its user, and an engine is code: "
            f"run chmod -R go-w {path.parent}, then build the engines again."
        )


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under another name first: whoever looks sees all of it or nothing.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)  # with permissions for this user alone
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise unwritable(path.parent, error) from error


def unwritable(folder: Path, error: OSError) -> OutputError:
    """The error of a folder of engines that does not take files."""
    return OutputError(f"cannot write engines to {folder} ({error}): let XDG_CACHE_HOME name a writable one.")
