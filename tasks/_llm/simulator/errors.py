"""What can go wrong with the simulator, as one-line errors. It formats no HTTP error bodies."""


class SimulatorError(Exception):
    """Base of this package's errors.

    Attributes:
        exit_code: 2 where the request was wrong, 1 where the run failed.
    """

    exit_code: int = 2


class SettingsInvalid(SimulatorError):
    """A setting is unknown, of the wrong type or out of range."""


class SimulatorNotStarted(SimulatorError):
    """The simulator's process ended, or said nothing, before it served."""

    exit_code = 1
