"""Settings of other libraries that must be in the environment before those libraries are loaded. Nothing here imports torch."""

from __future__ import annotations

import os

SETTINGS = {
    # onnxruntime (which runs the F0 estimator) looks up a telemetry host and writes a device id under HOME without this.
    "ORT_DISABLE_TELEMETRY": "1",
    # OpenMP threads sleep while they wait for each other. Spinning, they take the core that the thread they wait for needs: on two cores
    # with other work a conversion then takes six times as long.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def prepare() -> None:
    """Set what is not set yet. Call it before torch or onnxruntime is imported; afterwards it has no effect on them."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
