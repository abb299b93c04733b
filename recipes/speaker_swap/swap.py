"""Swap content and speaker between two recordings: `python recipes/speaker_swap/swap.py recipes/speaker_swap/conf/base.yaml`.

Writes four sounds and a picture of their mels: rows are contents, columns speakers.
"""

import sys
from pathlib import Path

from settings import SwapRecipe

import vcae
from vcae.audio.io import Sound, read_sound, write_sound
from vcae.config import load_config
from vcae.figures.plot import DPI, draw_mel, make_figure
from vcae.options import ConvertOptions
from vcae.tasks.convert import convert
from vcae.voice.voice import voice_from_sounds


def main() -> None:
    recipe = load_config(SwapRecipe, sys.argv[1], sys.argv[2:])
    model = vcae.load(recipe.checkpoint)
    sounds = [read_sound(recipe.first), read_sound(recipe.second)]
    names = [Path(recipe.first).stem, Path(recipe.second).stem]
    output = Path(recipe.output_dir)
    options = ConvertOptions(recipe.pitch, seed=recipe.seed)
    figure = make_figure(12, 7)
    axes = figure.subplots(2, 2, sharey=True)
    for row, source in enumerate(sounds):
        for column, reference in enumerate(sounds):
            done = convert(model, source, voice_from_sounds(model, [reference]), options)
            path = output / f"content-{names[row]}_speaker-{names[column]}.wav"
            write_sound(path, Sound(done.wav.numpy(), done.sample_rate), "converted by vcae", force=True)
            draw_mel(axes[row, column], done.mel[0], model.mel_config)
            axes[row, column].set_title(f"content {names[row]}, speaker {names[column]} ({done.output_f0_hz:.0f} Hz)")
            axes[row, column].set_xlabel("s")
            print(f"wrote {path}")
    figure.savefig(output / "mels.png", dpi=DPI)
    print(f"wrote {output / 'mels.png'}")


if __name__ == "__main__":
    main()
