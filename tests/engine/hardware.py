"""What the machine that runs the tests has."""

from __future__ import annotations

from engine.errors import BackendError
from engine.runtime.driver import open_driver


def has_gpu() -> bool:
    try:
        open_driver().close()
    except BackendError:
        return False
    return True
