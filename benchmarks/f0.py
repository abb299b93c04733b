"""Compare the F0 detector with WORLD's harvest: gross pitch error, voicing error, speed.

    pip install '.[eval]'
    python benchmarks/f0.py MANIFEST --split dev

Gross pitch error: share of frames voiced in both whose F0 differs by over 20 %. Voicing error: share of frames voiced in one only. Harvest
answers nearly everywhere on purpose and leaves voicing to D4C's love train, so three references are printed: harvest as it is, harvest
gated by D4C, and the frames where gated harvest and dio agree on voicing.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import pyworld

from vcae.audio import f0 as detector
from vcae.audio.io import read_sound

PERIOD_MS = 16.0


def references(wav: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return for each reference its F0 and the frames that count."""
    x = wav.astype(np.float64)
    harvest, times = pyworld.harvest(x, 16000, f0_floor=60, f0_ceil=500, frame_period=PERIOD_MS)
    aperiodicity = pyworld.d4c(x, harvest, times, 16000, threshold=0.85, fft_size=1024)
    gated = np.where(aperiodicity.mean(axis=1) > 0.999, 0.0, harvest)
    dio, _ = pyworld.dio(x, 16000, f0_floor=60, f0_ceil=500, frame_period=PERIOD_MS)
    everywhere = np.ones(len(harvest), bool)
    agree = (gated > 0) == (dio[: len(gated)] > 0)
    return {
        "harvest": (harvest, everywhere),
        "harvest + D4C": (gated, everywhere),
        "harvest + D4C and dio agree": (gated, agree),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    args = parser.parse_args()
    with args.manifest.open(newline="", encoding="utf-8") as opened:
        paths = [args.manifest.parent / r["path"] for r in csv.DictReader(opened) if r["split"] == args.split]
    counts: dict[str, np.ndarray] = {}
    spent = audio_s = 0.0
    for path in paths:
        wav = read_sound(path).wav
        start = time.process_time()
        ours = detector.estimate_f0(wav)
        spent, audio_s = spent + time.process_time() - start, audio_s + len(wav) / 16000
        for name, (theirs, counted) in references(wav).items():
            n = min(len(ours), len(theirs))
            a, b, c = ours[:n], theirs[:n], counted[:n]
            both = (a > 0) & (b > 0) & c
            gross = (np.abs(a[both] / b[both] - 1) > 0.2).sum()
            false, missed = ((a > 0) & (b == 0) & c).sum(), ((a == 0) & (b > 0) & c).sum()
            found = np.array([gross, both.sum(), false, missed, c.sum(), ((b > 0) & c).sum()])
            counts[name] = counts.get(name, np.zeros(6)) + found
    print(
        f"{len(paths)} files, {audio_s:.0f} s; {audio_s / spent:.0f} times real time, in CPU seconds; threshold {detector.VOICED_CONFIDENCE}"
    )
    print(f"{'reference':<30}{'voiced %':>10}{'gross error %':>15}{'voicing error %':>17}{'false %':>9}{'missed %':>10}")
    for name, (gross, both, false, missed, n, voiced) in counts.items():
        row = (voiced / n, gross / both, (false + missed) / n, false / n, missed / n)
        print(f"{name:<30}" + "".join(f"{100 * v:>{w}.2f}" for v, w in zip(row, (10, 15, 17, 9, 10), strict=True)))


if __name__ == "__main__":
    main()
