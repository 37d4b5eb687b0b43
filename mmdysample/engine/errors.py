"""Errors that the command line tools print as one sentence, without a traceback."""


class UsageError(Exception):
    """A mistake in a command, a config or a path that its own message explains."""


class MissingDataError(UsageError, FileNotFoundError):
    """Data that a config names is not there."""


class RefusedCheckpointError(UsageError):
    """A checkpoint holds more than weights and training state."""
