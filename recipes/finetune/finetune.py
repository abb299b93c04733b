"""Fine-tune the decoder to one voice and save the voice.

python recipes/finetune/finetune.py recipes/finetune/conf/base.yaml clips=FOLDER name=NAME


The voice can then be used like any saved one: `vcae convert talk.wav --speaker NAME`.
"""

import sys
from dataclasses import replace
from pathlib import Path

from settings import FinetuneRecipe

import vcae
from vcae import checkpoint
from vcae.audio.io import read_sound
from vcae.config import load_config, to_dict
from vcae.errors import AudioError, VcaeError
from vcae.training.cache import Row, prepare_cache
from vcae.training.config import AutoencoderRecipe, DataConfig
from vcae.training.objectives import AutoencoderObjective
from vcae.training.run import train
from vcae.voice.file import save_voice
from vcae.voice.shelf import voice_path
from vcae.voice.voice import MIN_REFERENCE_S, describe_voice

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}


def main() -> None:
    recipe = load_config(FinetuneRecipe, sys.argv[1], sys.argv[2:])
    target = voice_path(recipe.name)
    files = sorted(p for p in Path(recipe.clips).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise AudioError(f"{recipe.clips} has no sound files; give a folder of recordings of one voice, two minutes or more")
    model = vcae.load(recipe.checkpoint)
    output = Path(recipe.train.output_dir)
    cache = output / "cache"
    prepare_cache([Row(path, recipe.name, "own") for path in files], cache)
    data = DataConfig(
        cache=str(cache),
        validation_cache=str(cache),
        crop_s=recipe.crop_s,
        reference_s=recipe.reference_s,
        batch_size=recipe.batch_size,
    )
    autoencoder = AutoencoderRecipe(
        model=model.autoencoder.config,
        perturb=recipe.perturb,
        data=data,
        train=recipe.train,
        initial=str(model.checkpoint.path),
        trained="decoder",
    )

    def save(objective: AutoencoderObjective, path: Path, step: int) -> None:
        checkpoint.save(path, autoencoder=objective.model, info={"step": step, "seed": recipe.train.seed})

    train(lambda n: AutoencoderObjective(autoencoder, n), data, recipe.train, to_dict(recipe), save)
    tuned = checkpoint.load(output / "last.safetensors").autoencoder
    assert tuned is not None
    # It is saved in half precision, so it is measured in half precision.
    decoder = tuned.decoder.half().float().eval()
    sounds = [read_sound(path) for path in files]
    heard = [model.analyse(s.wav, s.sample_rate, s.name) for s in sounds if s.duration_s >= MIN_REFERENCE_S]
    voice = describe_voice(model, heard, decoder.to(model.device))
    facts = {
        "clips": [path.name for path in files],
        "made_by": f"vcae {vcae.__version__}",
        "fine_tuned_steps": recipe.train.max_steps,
    }
    save_voice(replace(voice, decoder=decoder), target, facts, force=True)
    print(f"saved {recipe.name}: {voice.speech_s:.0f} s of speech, {target.stat().st_size / 1e6:.1f} MB, {target}")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
