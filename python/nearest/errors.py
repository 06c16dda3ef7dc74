"""The few kinds of errors, named by what the caller can do about them.

The native module raises these classes too, so this file imports nothing of it. `OSError`, `MemoryError`,
`NotImplementedError` and `KeyboardInterrupt` are Python's own.
"""


class NearestError(Exception):
    """Everything that `nearest` raises by itself, unless Python has a class for it."""


class ArgumentError(NearestError, ValueError):
    """An argument is wrong; the text says what was expected and what was got. Nothing was changed."""


class UnknownIdError(ArgumentError, KeyError):
    """An id that was asked for is not in the index."""

    # KeyError would show the text in quotes and with its newlines escaped.
    __str__ = Exception.__str__


class FormatError(NearestError, ValueError):
    """The bytes are not a file that this version can open."""


class ReadOnlyError(NearestError, ValueError):
    """The index is a memory-mapped file and cannot be changed; open it with ``memory_map=False`` to change it."""
