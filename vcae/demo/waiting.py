"""Progress of a job with the time that is left."""

from __future__ import annotations

import time
from typing import Any

from vcae.demo.work import Report

# Time left is shown from this many seconds on, after this many seconds of work.
SHOWN_S, TRUSTED_S = 3.0, 1.0


def timed(progress: Any) -> Report:
    """Return a report for jobs that also says about how long the present part of the work still takes.

    Args:
        progress: `gr.Progress`.
    """
    part: dict[str, Any] = {}

    def report(share: float, what: str) -> None:
        now = time.perf_counter()
        if part.get("what") != what:
            part.update(what=what, start=now, share=share)
        took, done = now - part["start"], share - part["share"]
        left = took * (0.9 - share) / done if done > 0 else 0.0
        told = f"{what}, about {duration(left)} left" if took > TRUSTED_S and left > SHOWN_S else what
        progress(share, desc=told)

    return report


def duration(seconds: float) -> str:
    """Return a rounded duration in words."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
