"""Errors of an export, which the command line prints as one sentence."""

from mmdysample.engine.errors import UsageError


class ExportError(UsageError, ValueError):
    """A model cannot be exported in the way that was asked for."""


class DifferingOutputsError(ExportError):
    """An exported graph does not compute what PyTorch computes."""


class MissingRuntimeError(ExportError, ImportError):
    """The package of a runtime is not installed."""
