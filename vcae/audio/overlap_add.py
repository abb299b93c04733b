"""Time-scale modification by overlap-add: sound at another speed, of which only levels, phases between channels and noise are used.

Short frames are taken from where they were in the original and added where they belong. The phase of a tone is broken between frames, so
speech would sound rough; levels over time and frequency, and the differences between channels, stay. Frames have random signs, as slowed
noise would otherwise repeat at a constant lag, and sound like a tone.

Source: Verhelst and Roelands, An overlap-add technique based on waveform similarity (ICASSP 1993), without the search for similarity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

# Frames that are added at a time.
FRAMES = 256


def overlap_add(blocks: Iterable[np.ndarray], n: int, speed: float, hop: int) -> Iterator[np.ndarray]:
    """Yield a sound at another speed, n samples in all, in bounded memory.

    Args:
        blocks: Samples, (n,) or (n, channels) each; after their end the sound is silent.
        n: Samples of the result.
        speed: Samples of the original for each sample of the result.
        hop: Samples from frame to frame of the result; a frame has two hops.
    """
    source = iter(blocks)
    first = next(source, np.zeros(0, np.float32))
    shape = first.shape[1:]
    # Squares of the window sum to one over the overlapping frames, as the power of noise should.
    window = np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop)).astype(np.float32).reshape(-1, *(1 for _ in shape))
    # The original from sample `start` on; a hop of silence is before it.
    held, start = np.concatenate([np.zeros((hop, *shape), np.float32), first]), -hop
    tail = np.zeros((hop, *shape), np.float32)
    rng = np.random.default_rng(0)
    for k in range(0, -(-n // hop) + 1, FRAMES):
        places = [round(number * hop * speed) - hop for number in range(k, min(k + FRAMES, -(-n // hop) + 1))]
        parts, have = [held], len(held)
        while start + have < places[-1] + 2 * hop and (block := next(source, None)) is not None:
            parts.append(block)
            have += len(block)
        parts.append(np.zeros((max(places[-1] + 2 * hop - start - have, 0), *shape), np.float32))
        held = np.concatenate(parts)
        signs = rng.choice(np.array([-1, 1], np.float32), len(places)).reshape(-1, *(1 for _ in window.shape))
        frames = np.stack([held[at - start : at - start + 2 * hop] for at in places]) * window * signs
        made = frames[:, :hop] + np.concatenate([tail[None], frames[:-1, hop:]])
        tail = frames[-1, hop:]
        # The first hop of the first frame is before the sound.
        out = made[1 if k == 0 else 0 :].reshape(-1, *shape)
        yield out[: n - max(k - 1, 0) * hop]
        drop = min(max(places[-1] - start, 0), len(held))
        held, start = held[drop:], start + drop
