"""What can go wrong in the engine, and nothing else: the whole hierarchy in one place.

    EngineError
    ├── InvalidModelError     the graph is broken, or is not what the caller said it is
    ├── DynamicShapeError     an axis is still unknown after `shapes={...}`
    ├── UnsupportedOpError    an op with no gradient rule, or one that is refused by name
    ├── FeedError             an array whose name, shape or type does not fit the program
    └── BackendError          a backend is missing, lacks a precision, or failed to compile or run

Every message says what was wrong, where (op, node, axis, input), and what to do next.
"""

from __future__ import annotations


class EngineError(Exception):
    """Root of all errors that `engine` raises on purpose."""


class InvalidModelError(EngineError):
    """The model cannot be read, contradicts itself, or lacks a name that was asked for."""


class DynamicShapeError(EngineError):
    """A dimension is not known at build time; the message names the value and the axis."""


class UnsupportedOpError(EngineError):
    """An op that cannot be differentiated or compiled; the message names the op and the node."""


class FeedError(EngineError):
    """An array given to a program or a session does not fit one of its inputs."""


class BackendError(EngineError):
    """A backend is not installed, cannot do what was asked, or failed at it."""
