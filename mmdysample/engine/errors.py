"""Errors that the command line tools print as one sentence, without a traceback."""


class UsageError(Exception):
    """A mistake in a command, a config or a path that its own message explains."""


class MissingDataError(UsageError, FileNotFoundError):
    """Data that a config names is not there."""


class UnreadableImageError(UsageError):
    """A file is not a whole image."""


class RefusedCheckpointError(UsageError):
    """A checkpoint holds more than weights and training state."""


class UnwritableFileError(UsageError):
    """A file could not be written, for want of space or of permission."""


class DeadWorkerError(UsageError):
    """A process that loads data ended without a word."""


class DivergedError(UsageError):
    """A loss became infinite or not a number."""
