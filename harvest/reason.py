"""Why a file, a model or a dataset could not be read, for the one line that a user sees."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def read_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What reading a file or the hub raises when that is to blame, not we; and `more`."""
    from huggingface_hub.errors import HTTPError  # of the HTTP client it happens to use

    return (OSError, ValueError, HTTPError, *more)
