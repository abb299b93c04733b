"""Measure the watermark: whether it is found after MP3, resampling and cutting, false alarms, audibility and time.

    python benchmarks/watermark.py MANIFEST --sounds out/default [--real 100] [--marked 20]

`--sounds` is a folder of conversions without a watermark, from `python benchmarks/conversion.py MANIFEST --no-watermark --out out/default`.
False alarms are counted in recordings of the manifest, one of each speaker in turn. Audibility is PESQ (wide-band) of the marked against the
unmarked sound, and the mean difference in DistillMOS, both from `pip install '.[eval]'`.
"""

import argparse
import csv
import io
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile

from vcae.audio.io import read_sound, resample
from vcae.audio.watermark import find_watermark, mark

RATE = 16000


def code_mp3(wav: np.ndarray, rate: int, kbps: int = 64) -> np.ndarray:
    """Encode and decode as MP3."""
    made = io.BytesIO()
    with av.open(made, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=rate)
        stream.bit_rate, stream.layout = 1000 * kbps, "mono"
        frame = av.AudioFrame.from_ndarray((np.clip(wav, -1, 1) * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    made.seek(0)
    return np.asarray(soundfile.read(made, dtype="float32")[0])


CHANGES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, int]]] = {
    "none": lambda wav: (wav, RATE),
    "MP3 64 kbit/s": lambda wav: (code_mp3(wav, RATE), RATE),
    "48 kHz, MP3 64 kbit/s, 16 kHz": lambda wav: (resample(code_mp3(resample(wav, RATE, 48000), 48000), 48000, RATE), RATE),
    "48 kHz and back": lambda wav: (resample(resample(wav, RATE, 48000), 48000, RATE), RATE),
    "8 kHz": lambda wav: (resample(wav, RATE, 8000), 8000),
    "MP3 32 kbit/s at 8 kHz": lambda wav: (code_mp3(resample(wav, RATE, 8000), 8000, 32), 8000),
    "first second cut off": lambda wav: (wav[RATE:], RATE),
    "second second cut out": lambda wav: (np.concatenate([wav[:RATE], wav[2 * RATE :]]), RATE),
    "noise at 30 dB": lambda wav: (wav + 0.032 * wav.std() * np.random.default_rng(0).standard_normal(len(wav)), RATE),
}


def choose_real(manifest: Path, n: int) -> list[Path]:
    """Return recordings, one of each speaker in turn."""
    with manifest.open(newline="", encoding="utf-8") as opened:
        rows = sorted(csv.DictReader(opened), key=lambda row: row["speaker"])
    speakers = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row["speaker"])]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*speakers))
    return [manifest.parent / row["path"] for row in itertools.islice(filter(None, turns), n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--sounds", type=Path, required=True)
    parser.add_argument("--real", type=int, default=100)
    parser.add_argument("--marked", type=int, default=20)
    args = parser.parse_args()
    plain = [read_sound(path).wav for path in sorted(args.sounds.glob("*.wav"))[: args.marked]]
    started = time.perf_counter()
    marked = [mark(wav, RATE) for wav in plain]
    seconds = sum(map(len, plain)) / RATE
    print(f"marking {seconds:.0f} s of sound takes {time.perf_counter() - started:.2f} s")
    for name, change in CHANGES.items():
        found = [find_watermark(*change(wav)) for wav in marked]
        print(
            f"{name}: found in {sum(f.found for f in found)} of {len(found)}, version right in {sum(f.version is not None for f in found)}, "
            f"largest p-value {max(f.p_value for f in found):.1e}"
        )
    false = [
        find_watermark(read_sound(path).wav, read_sound(path).sample_rate) for path in choose_real(args.manifest, args.real)
    ]
    print(f"false alarms: {sum(f.found for f in false)} of {len(false)}, smallest p-value {min(f.p_value for f in false):.2g}")
    unmarked = sum(find_watermark(wav, RATE).found for wav in plain)
    print(f"false alarms in the unmarked conversions: {unmarked} of {len(plain)}")
    judge_audibility(plain, marked)


def judge_audibility(plain: list[np.ndarray], marked: list[np.ndarray]) -> None:
    """Print PESQ and the difference in DistillMOS."""
    import distillmos
    import torch
    from pesq import pesq

    scores = [pesq(RATE, a, b, "wb") for a, b in zip(plain, marked, strict=True)]
    print(
        f"PESQ against the unmarked: median {np.median(scores):.2f}, the smallest {np.round(np.sort(scores)[:3], 2).tolist()}"
    )
    judge = distillmos.ConvTransformerSQAModel().eval()
    with torch.inference_mode():
        moved = [
            float(judge(torch.from_numpy(b)[None]) - judge(torch.from_numpy(a)[None]))
            for a, b in zip(plain, marked, strict=True)
        ]
    print(
        f"DistillMOS, marked minus unmarked: mean {np.mean(moved):+.3f}, standard error {np.std(moved) / len(moved) ** 0.5:.3f}"
    )


if __name__ == "__main__":
    main()
