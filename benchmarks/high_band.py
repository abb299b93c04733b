"""Measure the band above 8 kHz of copies and conversions against real speech, on recordings with 44.1 kHz or more.

    apt-get download alsa-utils klettres-data ktuberling-data      (Debian: words and letters, spoken by volunteers in many languages)
    for file in *.deb; do dpkg -x $file spoken; done
    python benchmarks/high_band.py spoken

Each folder with sound files is a voice; those without a band above 8 kHz are left out. Printed are the median levels of the bands over all
voices (`LIKELY_DB`); and for every n-th voice the log-spectral distance above 8 kHz of its copies to the recording, and the levels in its
conversion to the next voice less those in that voice's own speech, in dB relative to 5 to 7 kHz.
"""

import argparse
import logging
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

import vcae
from vcae.audio.high_band import EDGES_HZ, BandProfile, has_high_band, measure_bands
from vcae.audio.io import Sound, read_sound, resample
from vcae.audio.output_rate import OutputRate, change_rate
from vcae.audio.suffixes import SUFFIXES

PAUSE_S, LONGEST_S, SHORTEST_S = 0.15, 40.0, 5.0
N_FFT, FLOOR, RANGE_DB, TOP_HZ = 1024, 1e-10, 40.0, 16000


def read_voices(root: Path) -> dict[str, Sound]:
    """Return the recordings of each folder joined, at 44.1 kHz or more."""
    folders = defaultdict(list)
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink():
            folders[path.parent].append(path)
    voices = {}
    for folder, paths in sorted(folders.items()):
        pieces, rate, seconds = [], 0, 0.0
        for path in paths:
            try:
                sound = read_sound(path)
            except vcae.AudioError:
                continue
            peak = float(np.abs(sound.wav).max())
            if sound.sample_rate < 44100 or sound.sample_rate != (rate or sound.sample_rate) or peak < 0.01:
                continue
            rate = sound.sample_rate
            pieces += [sound.wav * np.float32(0.5 / peak), np.zeros(round(PAUSE_S * rate), np.float32)]
            seconds += sound.duration_s + PAUSE_S
            if seconds > LONGEST_S:
                break
        if seconds >= SHORTEST_S:
            name = str(folder.relative_to(root))
            voices[name] = Sound(np.concatenate(pieces)[: round(LONGEST_S * rate)], rate, name)
    return voices


def levels(sound: Sound) -> np.ndarray:
    """Return the spectrum of each frame in dB."""
    frames = np.lib.stride_tricks.sliding_window_view(sound.wav, N_FFT)[:: N_FFT // 4]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(N_FFT), axis=1))) / N_FFT
    return np.asarray(10 * np.log10(power + FLOOR))


def distance(made: Sound, wanted: Sound) -> float:
    """Return the log-spectral distance between 8 kHz and `TOP_HZ` in the frames with sound, in dB."""
    a, b = levels(made), levels(wanted)
    loud = b.mean(axis=1)
    hertz = np.fft.rfftfreq(N_FFT, 1 / wanted.sample_rate)
    band = (hertz > EDGES_HZ[0]) & (hertz < TOP_HZ)
    error = (a - b)[loud > np.quantile(loud, 0.95) - RANGE_DB][:, band]
    return float(np.sqrt(np.square(error).mean(axis=1)).mean())


def at_rate(narrow: Sound, source: Sound, profile: BandProfile | None) -> Sound:
    """Return a sound at the rate of its source."""
    change = OutputRate(narrow.sample_rate, source.sample_rate, source.sample_rate, profile)
    return Sound(np.concatenate(list(change_rate(change, narrow.blocks(), source.blocks()))), source.sample_rate)


def below(made: Sound, narrow: Sound) -> float:
    """Return the difference between two sounds below 7 kHz, in dB relative to the second."""
    n = len(narrow.wav)
    a, b = (np.fft.rfft(x[:n])[: n * 7 // 16] for x in (resample(made.wav, made.sample_rate, 16000), narrow.wav))
    return float(10 * np.log10(np.square(np.abs(a - b)).sum() / np.square(np.abs(b)).sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--voices", type=int, default=8, help="voices that are copied and converted")
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of each")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    # Warnings: some of these recordings end early.
    logging.getLogger("vcae").setLevel(logging.ERROR)
    voices = {name: sound for name, sound in read_voices(args.folder).items() if measure_bands(sound.wav, sound.sample_rate)}
    profiles = {name: measure_bands(sound.wav, sound.sample_rate) for name, sound in voices.items()}
    medians = np.median([profile.levels_db for profile in profiles.values() if profile], axis=0)
    print(f"{len(voices)} voices; median levels in dB from {', '.join(map(str, EDGES_HZ))} Hz on:", *medians.round(1))
    model, chosen = vcae.load(device=args.device), list(voices)[:: max(len(voices) // args.voices, 1)][: args.voices]
    rows, work_s, audio_s = [], 0.0, 0.0
    print(
        "voice: distance of copies in dB (resampled, noise, source's band) | levels less the target's in dB | below 7 kHz, dB"
    )
    for name, other in zip(chosen, [*chosen[1:], chosen[0]], strict=True):
        sound = voices[name]
        source = Sound(sound.wav[: round(args.seconds * sound.sample_rate)], sound.sample_rate, name)
        assert has_high_band(source.sample_rate)
        narrow = model.reconstruct(source, rate=model.sample_rate)
        plain = Sound(resample(narrow.wav, narrow.sample_rate, source.sample_rate)[: len(source)], source.sample_rate)
        started = time.perf_counter()
        copies = [plain, at_rate(narrow, source, BandProfile((), 0.0)), at_rate(narrow, source, None)]
        work_s, audio_s = work_s + time.perf_counter() - started, audio_s + 2 * source.duration_s
        voice = model.voice(voices[other])
        made, low = (model.convert(source, reference=voice, rate=rate, watermark=False) for rate in (None, model.sample_rate))
        if len(made) != len(source):
            raise SystemExit(f"{name}: {len(made)} samples from {len(source)}")
        have, wanted = measure_bands(made.wav, made.sample_rate), profiles[other]
        assert wanted is not None
        less = np.array(have.levels_db if have else [np.nan] * len(EDGES_HZ)) - np.array(wanted.levels_db)
        rows.append([*(distance(copy, source) for copy in copies), *less, below(made, low)])
        print(
            f"{name} -> {other}:", *np.round(rows[-1][:3], 1), "|", *np.round(less, 1), "|", round(rows[-1][-1], 1), flush=True
        )
    mean = np.mean(rows, axis=0)
    print("mean:", *mean[:3].round(1), "|", *mean[3:-1].round(1), "|", mean[-1].round(1))
    print("mean size of the levels' differences:", *np.abs(np.array(rows)[:, 3:-1]).mean(axis=0).round(1))
    print(f"lengths are exact; the band costs {work_s / audio_s:.3f} s per second of sound")


if __name__ == "__main__":
    main()
