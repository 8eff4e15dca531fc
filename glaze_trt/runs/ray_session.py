"""Ray itself, as the one command that uses it needs it: found, connected to without a word, and told to stop."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, TextIO, cast

from glaze_trt.errors import UsageError

_POLL = 0.5
"""Seconds between two looks whether a person wants the run to stop."""

_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as Ray will have it; else it warns
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to its makers unasked
}

_PATIENCE = 10.0
"""Seconds for a cluster to take a connection."""


def find() -> Any:
    """The package `ray`, with its `data`.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ray
        import ray.data  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--ray needs {error.name}: pip install 'glaze-trt[ray]'") from error
    return ray


@contextmanager
def connected(ray: Any, address: str) -> Iterator[None]:
    """A connection that ends with the run, unless there was one before; meanwhile only this thread writes to stdout.

    Args:
        ray: the package.
        address: of a cluster, as `ray.init` takes it; "" for whatever Ray finds or starts.

    Raises:
        UsageError: there is no such cluster.
    """
    own = not ray.is_initialized()
    if own:
        _check_listening(address)
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        try:
            with _without_stderr():  # what it says there of its own settings is for nobody
                ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"--ray {address}: no such cluster ({' '.join(str(error).split())[:200]})") from error
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(cast(TextIO, _Ours(sys.stdout))):
            yield
    finally:
        logger.setLevel(level)
        if own:
            ray.shutdown()


def _check_listening(address: str) -> None:
    """Ray itself would try for minutes.

    Raises:
        UsageError: nobody is there.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        except (OSError, OverflowError) as error:
            raise UsageError(f"--ray {address}: no cluster can be reached there ({error})") from error


class _Ours:
    """Stdout for the thread that makes it: Ray has one that prints there when an actor dies."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return self._stream.write(text) if threading.get_ident() == self._thread else len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Of compiled code too."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def watched(stop: Callable[[], None], stopped: Callable[[], bool]) -> Iterator[None]:
    """Pass a person's wish to stop on, while this thread waits for results."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL):
            if stopped():
                with suppress(Exception):
                    stop()
                return

    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
