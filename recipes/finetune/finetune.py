"""Fit conversions to one voice and save the voice, as `vcae voice train` does.

python recipes/finetune/finetune.py recipes/finetune/conf/base.yaml clips=FOLDER name=NAME


The voice can then be used like any saved one: `vcae convert talk.wav --speaker NAME`.
"""

import sys
from pathlib import Path

from settings import FinetuneRecipe

import vcae
from vcae.config import load_config
from vcae.errors import DataError, VcaeError
from vcae.voice.file import save_voice
from vcae.voice.shelf import voice_path
from vcae.voice.speakers import Speaker, read_clips
from vcae.voice.train import train_voice


def main() -> None:
    recipe = load_config(FinetuneRecipe, sys.argv[1], sys.argv[2:])
    target = voice_path(recipe.name)
    clips = read_clips([Speaker(Path(recipe.clips), False, None)])
    done = train_voice(vcae.load(), list(clips.values()))
    figures = f"distance to held-out speech {done.before_db:.2f} dB before, {done.after_db:.2f} dB after"
    if done.voice is None:
        raise DataError(f"the training made the voice worse ({figures}); nothing was saved")
    facts = {"clips": [path.name for path in clips], "made_by": f"vcae {vcae.__version__}"}
    save_voice(done.voice, target, facts, force=True)
    print(f"saved {recipe.name}: {done.speech_s:.0f} s of speech, {figures}, {target.stat().st_size / 1e6:.1f} MB, {target}")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
