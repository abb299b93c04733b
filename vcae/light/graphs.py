"""The folder of graphs that `vcae export onnx` writes, run by onnxruntime."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vcae.environment import allowed_cores, prepare
from vcae.errors import CheckpointError

SETTINGS = "vcae.json"
FORMAT = 1


class Graphs:
    """Graphs of a checkpoint; each is loaded when it is used first.

    Attributes:
        settings: Plain data of the export: settings of the mel and of the models.

    Args:
        folder: Folder that `vcae export onnx` wrote.
        threads: Threads of onnxruntime; the cores that this process may use when None.

    Raises:
        CheckpointError: If it is not such a folder, or of another version of the format.
    """

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        prepare()
        self._folder, self._threads = Path(folder), threads or int(os.environ.get("OMP_NUM_THREADS") or allowed_cores())
        self._sessions = dict[str, Any]()
        try:
            self.settings: dict[str, Any] = json.loads((self._folder / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{folder} is not a folder of graphs: {SETTINGS} could not be read ({error}); write one with vcae export onnx"
            ) from error
        if self.settings.get("format") != FORMAT:
            raise CheckpointError(
                f"{folder} has format {self.settings.get('format')!r}; this version of vcae reads {FORMAT}; export it again"
            )
        mel = self.settings["mel"]
        self.sample_rate, self.hop_length = int(mel["sample_rate"]), int(mel["hop_length"])
        self.frame_rate = self.sample_rate / self.hop_length

    def run(self, name: str, **inputs: np.ndarray) -> list[np.ndarray]:
        """Run a graph and return its outputs.

        Raises:
            CheckpointError: If the graph is missing or damaged.
        """
        return list(self._session(name).run(None, inputs))

    def load(self, *names: str) -> None:
        """Load graphs before their first use."""
        for name in names:
            self._session(name)

    def _session(self, name: str) -> Any:
        if name not in self._sessions:
            self._sessions[name] = self._open(self._folder / f"{name}.onnx")
        return self._sessions[name]

    def _open(self, path: Path) -> Any:
        onnxruntime = _onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # Memory goes back after each run, and threads do not take a core while they wait.
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise CheckpointError(f"{path} could not be loaded ({str(error)[:200]}); export the folder again") from error


@lru_cache(maxsize=1)
def _onnxruntime() -> Any:
    prepare()
    import onnxruntime

    return onnxruntime
