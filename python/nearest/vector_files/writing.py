"""Outputs are written beside their target and renamed over it: whoever looks finds the old file or the new one."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator

from ..errors import ArgumentError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """The path of an empty file beside `path`, that takes its place when the block ends well and is removed when not.

    A symbolic link is followed, and an existing file's permissions are kept, as the core does with an index.
    """
    shown = os.fspath(path)
    target = os.path.realpath(shown)
    mode = None
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(target)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, "expected a file to write, got a folder", shown)
        if not stat.S_ISREG(status.st_mode):
            raise ArgumentError(f"{shown}: expected a file to write, got a pipe or a device")
        mode = stat.S_IMODE(status.st_mode)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:180]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        # The name that the caller knows, not ours.
        raise type(error)(error.errno, error.strerror, shown) from None
    try:
        os.close(descriptor)
        yield temporary
        if mode is not None:
            os.chmod(temporary, mode)
        _sync(temporary)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            error.filename = shown
        raise
    _sync(folder)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
