"""Everything that can go wrong with a picture, a style, a model or an output, drawn in one place.

    GlazeError              root: one line for a person, exit status 1
    ├── PictureError        the input cannot be read as one still picture
    ├── OutputError         the result cannot be written where it was asked for
    ├── StyleError          no such style, or a target that cannot be used
    ├── ModelError          no such model, or a model file that is not one
    ├── BudgetError         the saved file would break the perceptual budget
    ├── PrecisionError      numbers went out of range in the precision that was used
    └── UsageError          the request contradicts itself, exit status 2

Each message is one line: what was wrong, where, what to do next. Errors of the compiled graphs have a root of
their own, `engine.errors.EngineError`.
"""

from __future__ import annotations


class GlazeError(Exception):
    """Root of the errors a person can act on; `exit_status` is what the command line ends with."""

    exit_status: int = 1


class PictureError(GlazeError):
    """The input cannot be read as one still picture."""


class OutputError(GlazeError):
    """The result cannot be written where it was asked for."""


class StyleError(GlazeError):
    """No such style, or a target picture that cannot be used."""


class ModelError(GlazeError):
    """No such model, or a model file that is damaged or of another kind."""


class BudgetError(GlazeError):
    """The file as saved would break the perceptual budget."""


class PrecisionError(GlazeError):
    """Numbers went out of range in the precision that was used."""


class UsageError(GlazeError):
    """The request contradicts itself."""

    exit_status = 2
