"""Judges: what scores a conversion. Two are ours; the others are independent and come with the extra `eval`.

Every score is a number and a weight: a system's figure is the weighted mean over its files, so that error rates count words, not files.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vcae.audio.f0 import SAMPLE_RATE, estimate_f0, log_f0_statistics
from vcae.audio.io import read_sound, resample
from vcae.evaluation.pairs import Conversion
from vcae.tasks.model import Model

# Resemblyzer's cosine at which as many utterances of others pass as of the speaker's own fail (LibriSpeech test-other).
EQUAL_ERROR_COSINE = 0.718
SILENT_PHONES = ("SIL", "+NSN+", "+SPN+", "<s>", "</s>")


@dataclass(frozen=True)
class Column:
    """A score: its key, a heading, what it is, and which way is better (1 up, -1 down, 0 neither)."""

    key: str
    heading: str
    meaning: str
    better: int


@dataclass(frozen=True)
class Score:
    """A value, and how much it counts in a mean."""

    value: float
    weight: float = 1.0


class Judge(Protocol):
    """Scores one conversion at a time."""

    @property
    def columns(self) -> Sequence[Column]:
        """What it scores."""
        ...

    def score(self, conversion: Conversion) -> dict[str, Score]:
        """Return a score for each column."""
        ...


def load_wav(path: Path) -> np.ndarray:
    """Return a file (N,) float32 at 16 kHz, as every judge hears it."""
    sound = read_sound(path)
    wav = resample(sound.wav, sound.sample_rate, SAMPLE_RATE)
    peak = float(np.abs(wav).max())
    return wav / peak if peak > 1 else wav


class OwnSpeaker:
    """Cosine by vcae's own speaker encoder: the model that is judged hears itself, so trust the independent one more."""

    columns = (
        Column("own_target", "own cosine to target", "cosine to the target by vcae's own speaker encoder", 1),
        Column("own_source", "own cosine to source", "cosine to the source by vcae's own speaker encoder", -1),
    )

    def __init__(self, model: Model) -> None:
        self._model = model
        self._known: dict[Path, np.ndarray] = {}

    def _embed(self, path: Path) -> np.ndarray:
        if path not in self._known:
            seen = self._model.analyse(load_wav(path), SAMPLE_RATE, str(path))
            self._known[path] = self._model.autoencoder.encode_speaker(seen.mel)[0].detach().cpu().numpy()
        return self._known[path]

    def score(self, conversion: Conversion) -> dict[str, Score]:
        """Return the columns' scores."""
        heard = self._embed(conversion.converted)
        return {
            "own_target": Score(float(heard @ self._embed(conversion.target_ref))),
            "own_source": Score(float(heard @ self._embed(conversion.source))),
        }


class Pitch:
    """How far the median F0 lies from the target's, by the F0 estimator of vcae."""

    columns = (Column("f0_semitones", "F0 distance, semitones", "median F0 against the target's, semitones", -1),)

    def __init__(self) -> None:
        self._known: dict[Path, float] = {}

    def _median(self, path: Path) -> float:
        if path not in self._known:
            import torch

            self._known[path] = log_f0_statistics(torch.from_numpy(estimate_f0(load_wav(path))))[0]
        return self._known[path]

    def score(self, conversion: Conversion) -> dict[str, Score]:
        """Return the columns' scores."""
        distance = abs(self._median(conversion.converted) - self._median(conversion.target_ref)) * 12 / math.log(2)
        return {"f0_semitones": Score(distance)}


class Resemblyzer:
    """Cosine by the speaker encoder of Resemblyzer (Wan et al., Generalized End-to-End Loss, 2018)."""

    columns = (
        Column("cosine_target", "cosine to target", "Resemblyzer's cosine to the target", 1),
        Column("cosine_source", "cosine to source", "Resemblyzer's cosine to the source", -1),
        Column("accepted", "accepted", f"share above the equal-error cosine of {EQUAL_ERROR_COSINE}", 1),
    )

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from resemblyzer import VoiceEncoder, preprocess_wav

        self._encoder, self._preprocess = VoiceEncoder("cpu", verbose=False), preprocess_wav
        self._known: dict[Path, np.ndarray] = {}

    def _embed(self, path: Path) -> np.ndarray:
        if path not in self._known:
            wav = load_wav(path)
            spoken = self._preprocess(wav, SAMPLE_RATE)
            # Its voice detector may leave next to nothing of a short clip.
            self._known[path] = self._encoder.embed_utterance(spoken if len(spoken) >= SAMPLE_RATE // 2 else wav)
        return self._known[path]

    def score(self, conversion: Conversion) -> dict[str, Score]:
        """Return the columns' scores."""
        heard = self._embed(conversion.converted)
        target = float(heard @ self._embed(conversion.target_ref))
        return {
            "cosine_target": Score(target),
            "cosine_source": Score(float(heard @ self._embed(conversion.source))),
            "accepted": Score(float(target >= EQUAL_ERROR_COSINE)),
        }


class Dnsmos:
    """DNSMOS: opinion scores of noisy speech, predicted (Reddy et al., 2021 and 2022)."""

    columns = (
        Column("ovrl", "DNSMOS OVRL", "predicted overall quality, 1 to 5", 1),
        Column("p808", "DNSMOS P.808", "predicted quality after P.808, 1 to 5", 1),
    )

    def __init__(self) -> None:
        from speechmos import dnsmos

        self._run = dnsmos.run

    def score(self, conversion: Conversion) -> dict[str, Score]:
        """Return the columns' scores."""
        found = self._run(load_wav(conversion.converted), SAMPLE_RATE)
        return {"ovrl": Score(float(found["ovrl_mos"])), "p808": Score(float(found["p808_mos"]))}


class Recogniser:
    """Errors of pocketsphinx on the conversion against its own reading of the source: consistency, not accuracy."""

    columns = (
        Column("per", "PER", "phone errors against the recogniser's reading of the source", -1),
        Column("wer", "WER", "word errors against the recogniser's reading of the source", -1),
    )

    def __init__(self) -> None:
        from pocketsphinx import Decoder, get_model_path

        common: dict[str, Any] = {"samprate": SAMPLE_RATE, "loglevel": "FATAL", "cmn": "batch"}
        self._words = Decoder(**common)
        # Weight and beams of the phone loop as pocketsphinx's documentation gives them for phone recognition.
        loop = {"lm": None, "dict": None, "allphone": get_model_path("en-us/en-us-phone.lm.bin")}
        self._phones = Decoder(**common, **loop, lw=2.0, beam=1e-20, pbeam=1e-20)
        self._known: dict[Path, tuple[list[str], list[str]]] = {}

    def _read(self, path: Path) -> tuple[list[str], list[str]]:
        if path not in self._known:
            samples = (np.clip(load_wav(path), -1, 1) * 32767).astype(np.int16).tobytes()
            for decoder in (self._words, self._phones):
                # What was heard before must not count: the running mean of the features would carry over.
                decoder.reinit_feat()
                decoder.start_utt()
                decoder.process_raw(samples, full_utt=True)
                decoder.end_utt()
            hypothesis = self._words.hyp()
            phones = [s.word for s in self._phones.seg() if s.word not in SILENT_PHONES]
            self._known[path] = (hypothesis.hypstr.split() if hypothesis else [], phones)
        return self._known[path]

    def score(self, conversion: Conversion) -> dict[str, Score]:
        """Return the columns' scores; they count by the length of the source's reading."""
        from rapidfuzz.distance import Levenshtein

        heard, expected = self._read(conversion.converted), self._read(conversion.source)
        scores = {}
        for key, got, wanted in zip(("wer", "per"), heard, expected, strict=True):
            n = len(wanted)
            scores[key] = Score(Levenshtein.distance(wanted, got) / n if n else math.nan, n)
        return scores


INDEPENDENT: dict[str, type[Resemblyzer] | type[Dnsmos] | type[Recogniser]] = {
    "resemblyzer": Resemblyzer,
    "speechmos": Dnsmos,
    "pocketsphinx": Recogniser,
}


def choose_judges(model: Model) -> tuple[list[Judge], list[str]]:
    """Return our judges and the independent ones that are installed, and the packages of those that are not."""
    missing = [name for name in INDEPENDENT if importlib.util.find_spec(name) is None]
    if importlib.util.find_spec("rapidfuzz") is None and "pocketsphinx" not in missing:
        missing.append("pocketsphinx")
    found: list[Judge] = [make() for name, make in INDEPENDENT.items() if name not in missing]
    return [*found, Pitch(), OwnSpeaker(model)], missing


def mean(scores: Sequence[Score]) -> float:
    """Return the weighted mean of the scores that are numbers; nan when there are none."""
    kept = [s for s in scores if not math.isnan(s.value) and s.weight > 0]
    return sum(s.value * s.weight for s in kept) / sum(s.weight for s in kept) if kept else math.nan
