"""SIGTERM and SIGHUP end a process by an exception, so that it removes its incomplete files and ends its own processes."""

from __future__ import annotations

import signal
import time
from types import FrameType

# A closed terminal, a service manager and a shell may each send one; those that follow the first are ignored while it is cleaned up.
AGAIN_S = 5.0
NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

_last = float("-inf")


def exit_on_signals() -> None:
    """Raise SystemExit with 143 on SIGTERM and 129 on SIGHUP from now on; a signal that is ignored, as under nohup, stays so.

    Call it in the main thread.
    """
    for number in NUMBERS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _exit)


def ignore_signals() -> None:
    """Ignore SIGTERM and SIGHUP from now on, in a process that ends anyway."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _exit(number: int, frame: FrameType | None) -> None:
    global _last
    if time.monotonic() - _last > AGAIN_S:
        _last = time.monotonic()
        raise SystemExit(128 + number)
