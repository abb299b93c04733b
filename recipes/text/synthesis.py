"""Speech from phones, with what a reader itself calls each phone: the other half of the autoencoder."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from systems import Material, Reader

from vcae.audio.io import read_sound
from vcae.engine.engine import Engine
from vcae.engine.listening import analyse
from vcae.model.segments import merge
from vcae.text.errors import count_edits
from vcae.training.decipher_data import Speech
from vcae.voice.speaking import speak
from vcae.voice.voice import measure_voice

# Fewest steps that an average in a context needs; otherwise a smaller context is taken.
FEWEST = 20


class LatentTable:
    """Mean of the latent for each phone: with the phones beside it if there are enough steps, and by the third of its duration.

    Args:
        reader: Reader of the phones.
        speech: Recordings to learn from.
    """

    def __init__(self, reader: Reader, speech: Sequence[Speech]) -> None:
        self._sums: dict[tuple[int, ...], np.ndarray] = defaultdict(lambda: np.zeros(1))
        self._counts: dict[tuple[int, ...], int] = defaultdict(int)
        for one in speech:
            latent = one.latent.float().numpy()
            for contexts, step in zip(self._contexts(reader(one)), latent, strict=True):
                for context in contexts:
                    self._sums[context] = self._sums[context] + step
                    self._counts[context] += 1

    @staticmethod
    def _contexts(path: np.ndarray) -> list[list[tuple[int, ...]]]:
        """Return the contexts of each step, the largest first."""
        phones, starts = merge(path)
        ends, found = [*starts[1:], len(path)], []
        for n, (phone, first, last) in enumerate(zip(phones, starts, ends, strict=True)):
            before, after = (int(phones[k]) if 0 <= k < len(phones) else 0 for k in (n - 1, n + 1))
            for t in range(first, last):
                third = 3 * (t - first) // max(last - first, 1)
                found.append([(before, int(phone), after, third), (int(phone), third), (int(phone),), ()])
        return found

    def latent(self, path: np.ndarray) -> np.ndarray:
        """Return the latent (T, D) for the phones of steps (T,)."""
        made = []
        for contexts in self._contexts(path):
            context = next((c for c in contexts if self._counts[c] >= FEWEST), ())
            made.append(self._sums[context] / self._counts[context])
        return np.array(made)


@torch.inference_mode()
def score_speech(
    engine: Engine, material: Material, reader: Reader, tests: Sequence[Speech], folder: Path
) -> tuple[float, float]:
    """Say what was read in the voice of the recording, at its F0; return the errors of the units, and the cosine of the voices."""
    table = LatentTable(reader, material.speech[: material.recipe.n_part])
    edits = wanted = 0
    cosines = []
    for one in tests:
        sound = read_sound(folder / one.name)
        seen, voice = analyse(engine, sound), measure_voice(engine, sound)
        latent = torch.from_numpy(table.latent(reader(one)).astype(np.float32)).T[None]
        steps = -(-seen.mel.shape[-1] // engine.autoencoder.config.content.stride)
        latent = torch.nn.functional.pad(latent, (0, max(steps - latent.shape[-1], 0)), mode="replicate")[..., :steps]
        mel = speak(engine, latent, seen.f0, voice)
        again = Speech(one.name, one.speaker, "", "", engine.autoencoder.encode_latent(mel)[0].T, one.active)
        before, after = (merge(material.units(x))[0].tolist() for x in (one, again))
        edits, wanted = edits + count_edits(before, after), wanted + len(before)
        same, made = (engine.autoencoder.encode_speaker(x)[0] for x in (seen.mel, mel))
        cosines.append(float(torch.nn.functional.cosine_similarity(same, made, dim=0)))
    return edits / max(wanted, 1), float(np.mean(cosines))
