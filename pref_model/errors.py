"""The faults this room reports; it neither prints them nor ends the process."""


class ModelError(Exception):
    """A fault a user can act on: one line with object, found, expected, remedy.

    Attributes:
        exit_code: What the command line exits with (2 the request was wrong, 1 the run failed).
    """

    exit_code: int = 2


class BadArray(ModelError):
    """An array has the wrong shape, type or values for the routine it was given to."""


class BadSetting(ModelError):
    """A setting is outside what the routine can work with."""


class EncoderMissing(ModelError):
    """The encoder's files are not on this machine and cannot be fetched."""


class EncoderMismatch(ModelError):
    """The encoder's files are there but are not the ones that were promised."""


class CheckpointCorrupt(ModelError):
    """A saved model is incomplete or was written by something else."""


class FitFailed(ModelError):
    """The data were fine but the optimization produced no usable model."""

    exit_code = 1
