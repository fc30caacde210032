"""Errors of the orchestration room: one line that says what was found, expected and to be done."""

from __future__ import annotations


class TaskError(Exception):
    """Base of this room's errors; ``exit_code`` 2 means the request was wrong, 1 the run failed."""

    exit_code = 2


class InputRejected(TaskError):
    """A file or a setting handed in by the user cannot be used."""


class StageFailed(TaskError):
    """A stage could not be finished although the request was right."""

    exit_code = 1


class ServerFailed(TaskError):
    """Prefect's temporary server does not start."""

    exit_code = 1


def exit_code_of(error: BaseException) -> int | None:
    """The exit code of an error that any room classified; None for one that nobody foresaw."""
    code = getattr(error, "exit_code", None)
    return code if isinstance(code, int) else None
