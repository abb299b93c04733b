"""Sounds of the documentation: made from the bundled clips by the model itself, and not stored in the repository.

Usage: python docs/site/sounds.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIPS = ROOT / "demo/clips"
FOLDER = ROOT / "out/sounds"
SUFFIX = ".mp3"
# Recordings: name, file, what it is.
RECORDINGS = [
    ("source", "source.flac", "A man reads a sentence"),
    ("friend", "reference.flac", "A woman, whose voice is wanted"),
    ("second", "reference2.flac", "Another woman"),
    ("noisy", "noisy.flac", "The sentence with a helicopter, 5 dB below the speech"),
]
# Results: name, the recording that it is made from, what it is, the command.
RESULTS = [
    ("converted", "source", "The sentence in the voice of the second clip", "vcae convert source.flac -s reference.flac"),
    (
        "converted-second",
        "source",
        "The sentence in the voice of the third clip",
        "vcae convert source.flac -s reference2.flac",
    ),
    ("half", "source", "Half way to the voice of the second clip", "vcae convert source.flac -s reference.flac --strength 0.5"),
    (
        "new-voice",
        "source",
        "The sentence in a new voice",
        "vcae generate voice --seed 7 -o nova; vcae convert source.flac -s nova",
    ),
    (
        "spoken",
        "source",
        "Units of the sentence, spoken in the voice of the second clip",
        "vcae units source.flac | vcae speak - -s reference.flac",
    ),
    ("denoised", "noisy", "Without the helicopter", "vcae denoise noisy.flac"),
    ("codec-0.6", "source", "Compressed to 0.6 kbit/s", "vcae compress source.flac --kbps 0.6"),
    ("codec-1.5", "source", "Compressed to 1.5 kbit/s", "vcae compress source.flac --kbps 1.5"),
]


def make(folder: Path = FOLDER) -> None:
    """Write all sounds as mp3 files."""
    import vcae

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model, units = vcae.load(device="cpu"), vcae.load("vq", device="cpu")
    source, friend, second = (CLIPS / name for name in ("source.flac", "reference.flac", "reference2.flac"))
    made = {name: vcae.read_sound(CLIPS / file) for name, file, _ in RECORDINGS}
    made |= {
        "converted": model.convert(source, reference=friend),
        "converted-second": model.convert(source, reference=second),
        "half": model.convert(source, reference=friend, strength=0.5),
        "new-voice": model.convert(source, reference=model.new_voice(7)),
        "spoken": units.speak(units.units(source), friend),
        "denoised": vcae.denoise(CLIPS / "noisy.flac"),
    }
    sound = made["source"]
    for kbps in (0.6, 1.5):
        made[f"codec-{kbps}"] = vcae.decompress(vcae.compress(sound.wav, sound.sample_rate, kbps))
    for name, sound in made.items():
        sound.save(folder / f"{name}{SUFFIX}")


def made(folder: Path = FOLDER) -> list[Path]:
    """Return the sounds that were made."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def table(folder: Path = FOLDER) -> str:
    """Return the players of all sounds, as Markdown; without sounds, how to make them."""
    there = {path.stem for path in made(folder)}
    if not there:
        return "The sounds are not made yet: `make docs` makes them."
    lines = ["| recording | |", "|---|---|"]
    lines += [f"| {text} | {_player(name)} |" for name, _, text in RECORDINGS]
    lines += ["", "| | before | after |", "|---|---|---|"]
    lines += [f"| {text}<br>{_code(line)} | {_player(before)} | {_player(name)} |" for name, before, text, line in RESULTS]
    return "\n".join(lines)


def _player(name: str) -> str:
    return f'<audio controls preload="none" src="sounds/{name}{SUFFIX}"></audio>'


def _code(line: str) -> str:
    return f"<code>{line.replace('|', '&#124;')}</code>"


if __name__ == "__main__":
    make()
