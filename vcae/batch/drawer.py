"""Worker that draws recordings, or measures what is drawn of several in one picture. Torch is imported when it starts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vcae.batch.jobs import Job
from vcae.batch.worker import Made, Talk, Worker
from vcae.files import STDIO, check_target, write_file
from vcae.model_file import FoundFile, find

if TYPE_CHECKING:
    from vcae.audio.io import SoundReader
    from vcae.engine.engine import Engine

# Longest recording in a picture; longer ones would not be legible.
MAX_S = 120.0
# Most recordings in one picture.
MAX_FILES = 12


class Drawer(Worker):
    """Worker that measures mel, F0 and units of recordings, and draws them if a job has an output.

    Args:
        units: Measure the units of the checkpoint too.
        checkpoint: Name or path of the checkpoint.
        device: As in `choose_device`.

    Raises:
        CheckpointError: If there is no such checkpoint.
    """

    verb, doing = "drawn", "drawing"
    ending = ".png"
    few = MAX_FILES

    def __init__(self, units: bool = False, checkpoint: str = "vq", device: str = "auto") -> None:
        self._device = device
        self.file = FoundFile(find(checkpoint)) if units else None

    @cached_property
    def _engine(self) -> Engine | None:
        from vcae.engine.engine import Engine

        return None if self.file is None else Engine(self.file.path, self._device)

    @property
    def device(self) -> str:
        """Device to compute on."""
        return "cpu" if self._engine is None else str(self._engine.device)

    def start(self) -> None:
        """Check that pictures can be drawn, and load the checkpoint."""
        from vcae.figures.plot import need_matplotlib

        need_matplotlib()
        _ = self._engine

    def open(self, source: str, stdin: BinaryIO | None = None) -> AbstractContextManager[SoundReader]:
        """Open a recording that is short enough for a picture."""
        from vcae.audio.io import SoundReader

        return SoundReader(source, stdin, max_s=MAX_S)

    @classmethod
    def outputs(cls) -> tuple[str, ...]:
        """Return the suffixes of pictures."""
        return (".png", ".svg")

    @classmethod
    def check(cls, output: str, source: Any, force: bool) -> None:
        """Refuse an output that could not be written.

        Raises:
            DataError: Then.
        """
        check_target(output, force, cls.outputs())

    def settings(self, job: Job) -> dict[str, Any]:
        """Return whether units are drawn, and the title."""
        return {"units": self.file is not None, "name": job.name}

    def make(self, job: Job, source: SoundReader, talk: Talk) -> Made:
        """Measure a recording; the value is its name, mel (n_mels, T), F0 (T,) and units, or None for these."""
        from vcae.figures.plot import draw_views, picture_format, view_sound
        from vcae.tasks.units import encode_units

        sound, name = source.read(), "standard input" if job.source == STDIO else Path(job.source).name
        view = view_sound(sound, name, None if self._engine is None else encode_units(self._engine, sound, name))
        if job.output:
            write_file(job.output, draw_views([view], picture_format(Path(job.output))), talk.stdout)
        facts = {"panels": view.panels}
        # Arrays, as a tensor would be shared with the process that receives it, and end with this one.
        value = (name, view.mel.numpy(), view.f0.numpy(), view.units)
        return Made(view.seconds, f"{view.seconds:.1f} s, {' and '.join(view.panels)}", facts, value=value)
