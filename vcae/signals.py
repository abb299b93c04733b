"""Signals end a process by an exception, so that it removes its incomplete files and ends its own processes."""

from __future__ import annotations

import signal
import threading
import time
from importlib.machinery import ExtensionFileLoader
from types import FrameType

# A closed terminal, a service manager and a shell may each send one; those that follow the first are ignored while it is cleaned up.
AGAIN_S = 5.0
# Seconds after which a signal that came at a wrong moment comes again.
LATER_S = 0.01
NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

_last = float("-inf")


def exit_on_signals() -> None:
    """Raise SystemExit with 143 on SIGTERM and 129 on SIGHUP from now on, and KeyboardInterrupt on SIGINT as before.

    A signal that is ignored, as under nohup, stays so. One that comes while libsndfile calls soundfile, or while a compiled module is
    imported, through which an exception may not pass, is handled just after. Call it in the main thread.
    """
    for number in NUMBERS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _exit)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def ignore_signals() -> None:
    """Ignore SIGTERM and SIGHUP from now on, in a process that ends anyway."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _exit(number: int, frame: FrameType | None) -> None:
    global _last
    if _swallows_exceptions(frame):
        _send_later(number)
    elif time.monotonic() - _last > AGAIN_S:
        _last = time.monotonic()
        raise SystemExit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _swallows_exceptions(frame):
        _send_later(number)
    else:
        signal.default_int_handler(number, frame)


def _swallows_exceptions(frame: FrameType | None) -> bool:
    """Tell whether a frame runs in C code through which an exception may not pass.

    This is a callback that soundfile gives to libsndfile, where it is printed and lost, and the import of a compiled module: those made
    by Cython try some imports and registrations, and go on after any exception.
    """
    while frame is not None:
        if frame.f_globals.get("__name__") == "soundfile" and frame.f_code.co_name.startswith("vio_"):
            return True
        if frame.f_code.co_name in ("create_module", "exec_module") and isinstance(
            frame.f_locals.get("self"), ExtensionFileLoader
        ):
            return True
        frame = frame.f_back
    return False


def _send_later(number: int) -> None:
    timer = threading.Timer(LATER_S, _send, (number,))
    timer.daemon = True
    timer.start()


def _send(number: int) -> None:
    if hasattr(signal, "pthread_kill"):
        # To the main thread, so that it is also woken if it waits.
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)
