"""Compare rounding of the latent with vector quantisation: `python recipes/codec/quantizers.py CODEC CACHE DEV_CACHE [QUALITY ...]`.

Latents of unseen speakers, in units of the quantiser's step, are coded by residual vector quantisation (k-means on the training data, eight bits
per codebook) and by rounding with the codec's own prior. Prints bits per step, and mean squared errors in steps.
"""

import sys

import numpy as np
import torch

from vcae.audio.io import Sound
from vcae.codec.block import PHASE_STEPS, Block
from vcae.codec.codec import BLOCK_STEPS, Codec
from vcae.model.quantizer import kmeans
from vcae.training.data import SpeechCache

KMEANS_STEPS = 15
CODEBOOK_SIZE = 256
UTTERANCES = 120


@torch.inference_mode()
def latents(codec: Codec, cache: SpeechCache, quality: int) -> tuple[torch.Tensor, float]:
    """Return latents (N, D) in units of the quantiser's step before rounding, and the cost in bits per time step after rounding."""
    rows, bits, n_steps = [], 0.0, 0
    for index in np.linspace(0, len(cache.utterances) - 1, UTTERANCES).round().astype(int):
        utterance = cache.utterances[index]
        wav, _ = cache.crop(utterance, 0, min(utterance.n_frames - 1, 500))
        base = codec.analyse(Sound(wav, 16000, f"utterance {index}"))
        mel = codec.base_mel(base)
        exact = codec.latent(base, mel, quality, 0, len(base.voicing))
        rows.append(torch.from_numpy(exact.T).float())
        for start in range(0, len(base.voicing), BLOCK_STEPS):
            cut = slice(start, min(start + BLOCK_STEPS, len(base.voicing)))
            k = cut.stop - cut.start
            voicing, silent = base.voicing.numpy()[cut], np.zeros(-(-k // PHASE_STEPS), np.int64)
            block = Block(
                base.codes[:, cut], voicing, base.place.numpy()[cut], silent, np.round(exact[:, cut]).astype(np.int64)
            )
            bits += 8 * (len(codec.file.coder.encode(block, quality)[0]) - len(codec.file.coder.encode(block, 0)[0]))
            n_steps += k
    return torch.cat(rows), bits / n_steps


def main() -> None:
    codec, train, dev = Codec(sys.argv[1]), SpeechCache(sys.argv[2]), SpeechCache(sys.argv[3])
    print("| quality | rounded: bits per step, error | residual codebooks: bits per step, error |\n|---|---|---|")
    for quality in [int(text) for text in sys.argv[4:]] or [60, 128]:
        torch.manual_seed(0)
        known, _ = latents(codec, train, quality)
        unseen, bits = latents(codec, dev, quality)
        rounded = float((unseen - unseen.round()).square().mean())
        left, rest = known, unseen
        cells = []
        for stage in range(1, round(bits / 8) + 1):
            means, _ = kmeans(left, CODEBOOK_SIZE, KMEANS_STEPS)
            left = left - means[torch.cdist(left, means).argmin(dim=1)]
            rest = rest - means[torch.cdist(rest, means).argmin(dim=1)]
            cells.append(f"{8 * stage}: {float(rest.square().mean()):.3f}")
        print(f"| {quality} | {bits:.1f}: {rounded:.3f} | {', '.join(cells[-2:])} |", flush=True)


if __name__ == "__main__":
    main()
