"""Measure what keeping the music under converted speech would give: speech and music are mixed, taken apart, and the speech is converted.

    python benchmarks/keep_music.py MANIFEST --pairs 8 --out out/keep_music
    vcae evaluate out/keep_music/pairs.csv -o out/judged

Music is synthesised: chords, a melody and drums. It is taken apart by the shipped denoiser alone, and by the denoiser together with
harmonic-percussive separation, whose sustained tones and drum beats are never speech. Printed are the scale-invariant signal-to-distortion
ratios (SI-SDR) of both parts, and the level of the old voice that is left in the music, relative to the music. The judges get the conversion
of the mixture, of each split with its music added back, and of the true speech with the true music, which is the bound.

Source: Driedger, Mueller and Disch, Extending harmonic-percussive separation of audio (ISMIR 2014).
"""

import argparse
from pathlib import Path

import librosa
import numpy as np
from scipy.signal import butter, sosfilt

import vcae
from vcae.audio.io import Sound, read_sound, resample, write_sound
from vcae.engine.denoise import shared_cleaner
from vcae.evaluation.pairs import choose_pairs, read_references
from vcae.evaluation.tables import Conversion, write_table
from vcae.options import ConvertOptions
from vcae.tasks.convert import convert
from vcae.voice.voice import Voice, voice_from_sounds

RATE = 16000
# Frames for tones and for beats, in samples; a part counts as tones or as beats if it is this many times as strong as the other.
LONG, SHORT, MARGIN = 2048, 256, 3.0
CHORDS = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))


def play_music(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n samples of four chords in turn, a melody and drums, at unit level."""
    beat_s, root = rng.uniform(0.4, 0.6), rng.uniform(110, 165)
    chords, drums = np.zeros(n), np.zeros(n)
    hats = sosfilt(butter(2, 5000, "highpass", fs=RATE, output="sos"), rng.standard_normal(n))
    for k in range(int(n / RATE / beat_s) + 1):
        at = int(k * beat_s * RATE)
        chord = CHORDS[k // 4 % 4]
        if k % 4 == 0:
            for step in chord:
                _add_tone(chords, at, root * 2 ** (step / 12), 4 * beat_s, 0.6)
        _add_tone(chords, at, 2 * root * 2 ** (chord[int(rng.integers(3))] / 12), beat_s, 1.0)
        if at < n:
            time = np.arange(n - at) / RATE
            drums[at:] += (np.exp(-time / 0.02) * 0.5) * hats[at:]
            if k % 2 == 0:
                drums[at:] += 2 * np.sin(2 * np.pi * 55 * time) * np.exp(-time / 0.08)
    total = chords / np.std(chords) + 0.7 * drums / np.std(drums)
    return np.asarray(total / np.std(total))


def _add_tone(total: np.ndarray, at: int, hz: float, seconds: float, level: float) -> None:
    """Add a tone with eight harmonics, an attack and a decay."""
    n = min(int(seconds * RATE), len(total) - at)
    if n <= 0:
        return
    time = np.arange(n) / RATE
    tone = sum(np.sin(2 * np.pi * hz * k * time) / k**1.5 for k in range(1, 9))
    total[at : at + n] += (
        level * tone * np.minimum(time / 0.01, 1) * np.exp(-time / seconds) * np.minimum((n - np.arange(n)) / 200, 1)
    )


def denoiser_split(mix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return speech and music by the denoiser."""
    speech = shared_cleaner("cpu").sound(Sound(mix, RATE), 1.0).wav
    return speech, mix - speech


def harmonic_percussive_split(mix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return speech and music by harmonic-percussive separation, and by the denoiser of what is neither."""
    tones = librosa.effects.harmonic(mix, n_fft=LONG, hop_length=LONG // 4, margin=MARGIN)
    rest = mix - tones
    beats = librosa.effects.percussive(rest, n_fft=SHORT, hop_length=SHORT // 4, margin=MARGIN)
    speech, _ = denoiser_split((rest - beats).astype(np.float32))
    return speech, mix - speech


SPLITS = {"denoiser": denoiser_split, "denoiser, harmonic-percussive": harmonic_percussive_split}


def si_sdr_db(wanted: np.ndarray, made: np.ndarray) -> float:
    """Return the scale-invariant signal-to-distortion ratio (Le Roux et al., 2019)."""
    part = wanted * np.dot(wanted, made) / np.dot(wanted, wanted)
    return float(10 * np.log10(np.square(part).sum() / np.square(made - part).sum()))


def leak_db(speech: np.ndarray, music: np.ndarray, rest: np.ndarray) -> float:
    """Return the level of the speech in the separated music, relative to the music: both are fitted to it in each frequency."""
    voice, true, made = (librosa.stft(x, n_fft=512) for x in (speech, music, rest))
    level = 0.0
    for one, two, three in zip(voice, true, made, strict=True):
        found = np.linalg.lstsq(np.stack([one, two], axis=1), three, rcond=None)[0]
        level += float(np.square(np.abs(found[0] * one)).sum())
    return float(10 * np.log10(level / np.square(np.abs(true)).sum()))


def add_music(model: vcae.Model, speech: np.ndarray, voice: Voice, music: np.ndarray) -> np.ndarray:
    """Return speech in another voice, with music added back."""
    options = ConvertOptions(denoise=False, rate=RATE)
    return np.asarray(convert(model, Sound(speech, RATE), voice, options).wav.numpy() + music)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--ratio-db", type=float, default=5.0, help="level of the speech relative to the music")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/keep_music"))
    args = parser.parse_args()
    model, root = vcae.load(), args.manifest.parent
    args.out.mkdir(parents=True, exist_ok=True)
    lines: list[Conversion] = []
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SPLITS}
    for number, pair in enumerate(choose_pairs(args.manifest, args.split, args.pairs, args.seed, 3.0, 0.0)):
        recording = read_sound(root / pair.source["path"])
        speech = resample(recording.wav, recording.sample_rate, RATE)
        music = play_music(len(speech), np.random.default_rng(number)) * np.std(speech) / 10 ** (args.ratio_db / 20)
        mix = (speech + music).astype(np.float32)
        voice = voice_from_sounds(model, read_references(root, pair, 0.0))
        made = {
            "mixture converted": convert(model, Sound(mix, RATE), voice, ConvertOptions(rate=RATE)).wav.numpy(),
            "true parts": add_music(model, speech, voice, music),
        }
        for name, split in SPLITS.items():
            found, rest = split(mix)
            figures[name].append((si_sdr_db(speech, found), si_sdr_db(music, rest), leak_db(speech, music, rest)))
            made[name] = add_music(model, found, voice, rest)
        for name, wav in made.items():
            path = args.out / f"{number:02d}_{name.replace(', ', '_').replace(' ', '_')}.wav"
            write_sound(path, Sound(wav.astype(np.float32), RATE), "converted by vcae", force=True)
            judged, text = root / pair.judged["path"], pair.source.get("transcript", "")
            lines.append(Conversion(path, root / pair.source["path"], judged, text, name))
    write_table(args.out / "pairs.csv", sorted(lines, key=lambda line: line.label))
    print(f"mixture: SI-SDR of the speech {args.ratio_db:.1f} dB, of the music {-args.ratio_db:.1f} dB")
    for name, rows in figures.items():
        speech_db, music_db, leak = np.mean(rows, axis=0)
        print(
            f"{name}: SI-SDR of the speech {speech_db:.1f} dB, of the music {music_db:.1f} dB; old voice in the music {leak:.1f} dB"
        )


if __name__ == "__main__":
    main()
