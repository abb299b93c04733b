"""Words of transcripts and their phones, for all steps of this recipe."""

from collections.abc import Sequence
from pathlib import Path

from vcae.errors import DataError
from vcae.evaluation.alignment import normalize_transcript
from vcae.training.transcriber import Reading

__all__ = ["held_out", "normalize_transcript", "read_dictionary"]


def read_dictionary() -> dict[str, list[tuple[str, ...]]]:
    """Return the pronunciations of each word in the CMU Pronouncing Dictionary, as pocketsphinx ships it; the usual one is the first.

    Raises:
        DataError: If pocketsphinx is not installed.
    """
    try:
        from pocketsphinx import get_model_path
    except ImportError as error:
        raise DataError("the dictionary comes with pocketsphinx, which is not installed; pip install 'vcae[eval]'") from error
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in Path(get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8").splitlines():
        word, *phones = line.split()
        found.setdefault(word.partition("(")[0], []).append(tuple(phones))
    return found


def held_out(readings: Sequence[Reading], corpus: str, every: int) -> tuple[list[Reading], list[Reading]]:
    """Split recordings into those to train on, and those of every n-th speaker of a corpus."""
    speakers = sorted({r.speaker for r in readings if r.speaker.startswith(corpus)})
    held = set(speakers[::every])
    return [r for r in readings if r.speaker not in held], [r for r in readings if r.speaker in held]
