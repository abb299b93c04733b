"""Turn a trained codec into a file for use: `python recipes/codec/release.py recipes/codec/conf/release.yaml [name=value ...]`.

The entropy coder's networks are converted to integers; quantisation levels of the voice, bit rates and statistics of phases are measured on the
training data.
"""

import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from settings import CodecReleaseRecipe
from torch import Tensor

from vcae.audio.io import Sound
from vcae.codec import files
from vcae.codec.block import MAX_QUALITY, PHASES
from vcae.codec.codec import Codec
from vcae.codec.speaker import fit_levels
from vcae.config import load_config
from vcae.errors import VcaeError
from vcae.tasks.model import Model
from vcae.training.data import SpeechCache

log = logging.getLogger(__name__)

# Frames of speech that are used for a speaker's embedding.
HEARD_FRAMES = 500
# Utterances to which the levels of the speaker embedding are fitted.
SPEAKER_UTTERANCES = 4000
# Qualities whose bit rate is measured; between them its logarithm is interpolated.
MEASURED = (1, 20, 45, 75, 110, 150, 190, 225, 255)


def release(recipe: CodecReleaseRecipe) -> None:
    networks, cache = files.load_networks(recipe.networks), SpeechCache(recipe.cache)
    polish = None if recipe.polish is None else files.load_polish(recipe.polish)
    if polish is not None:
        for parameter in polish.output.parameters():
            parameter.requires_grad_(False).mul_(recipe.polish_strength)
    base = Model(networks.config.base)
    config = base.autoencoder.config
    assert config.quantizer is not None
    log.info("measuring %d voices", min(SPEAKER_UTTERANCES, len(cache.utterances)))
    levels = fit_levels(_embeddings(base, cache, SPEAKER_UTTERANCES), recipe.speaker_bytes)
    extra = {f"speaker.{key}": value for key, value in levels.items()}
    # Placeholder levels until the error of the base layer is measured.
    extra |= {f"timbre.{key}": value for key, value in fit_levels(torch.randn(64, config.mel.n_mels), 1).items()}
    extra |= {"phase": torch.ones(PHASES + 1, PHASES, dtype=torch.int32), "rates": torch.zeros(MAX_QUALITY + 1)}
    sounds = [_sound(cache, i) for i in _spread(len(cache.utterances), recipe.utterances)]

    def save(path: Path) -> None:
        sha256, size = base.checkpoint.sha256, config.quantizer.codebook_size if config.quantizer else 0
        files.save_codec(path, networks, size, extra, recipe.info, sha256, polish)

    # The rates are measured with a temporary file of the codec without rates.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codec.safetensors"
        save(path)
        codec = Codec(path)
        extra["phase"], extra["rates"] = codec.measure(sounds, MEASURED)
        many = [_sound(cache, i) for i in _spread(len(cache.utterances), recipe.timbre_utterances)]
        timbres = torch.cat([codec.timbre(codec.analyse(sound)).cpu() for sound in many])
        extra |= {f"timbre.{key}": value for key, value in fit_levels(timbres, recipe.timbre_bytes).items()}
    save(Path(recipe.output))
    log.info("wrote %s", recipe.output)


def _spread(n: int, wanted: int) -> list[int]:
    return sorted(set(np.linspace(0, n - 1, min(n, wanted)).round().astype(int).tolist()))


def _sound(cache: SpeechCache, index: int) -> Sound:
    utterance = cache.utterances[index]
    wav, _ = cache.crop(utterance, 0, max(utterance.n_frames - 1, 1))
    return Sound(wav, 16000, f"utterance {index}")


@torch.inference_mode()
def _embeddings(model: Model, cache: SpeechCache, wanted: int) -> Tensor:
    rows = []
    for index in _spread(len(cache.utterances), wanted):
        utterance = cache.utterances[index]
        wav, _ = cache.crop(utterance, 0, min(utterance.n_frames - 1, HEARD_FRAMES))
        rows.append(model.autoencoder.encode_speaker(model.log_mel(torch.from_numpy(wav)[None].to(model.device)))[0].cpu())
    return torch.stack(rows)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        release(load_config(CodecReleaseRecipe, sys.argv[1], sys.argv[2:]))
    except VcaeError as error:
        sys.exit(f"error: {error}")
