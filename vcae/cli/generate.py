"""`vcae generate` and `vcae interpolate`: new voices, voices between two, and babble."""

from __future__ import annotations

import json as json_module
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcae.cli.common import (
    CheckpointOption,
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    OutputOption,
    QuietOption,
    Stopwatch,
    output_path,
    progress,
    report,
    user_errors,
)
from vcae.cli.convert import ExpressionOption, FormantOption, SpeedOption, WatermarkOption
from vcae.cli.help import App
from vcae.errors import ConfigError
from vcae.files import check_target, provenance
from vcae.model_file import find
from vcae.options import BabbleOptions, ConvertOptions
from vcae.version import __version__
from vcae.voice.shelf import voice_target
from vcae.voice.speakers import Speaker, find_voice, parse_speaker, read_clips

if TYPE_CHECKING:
    from vcae.audio.io import Sound
    from vcae.tasks.model import Model
    from vcae.voice.voice import Voice

app = App(help="Generate new voices, and babble.")

SeedOption = Annotated[int, typer.Option(min=0, metavar="N", help="The same seed gives the same file.")]
DISCRETE = "vq"
MAX_STEPS = 100


def _pitch(voice: Voice) -> str:
    return "unvoiced" if math.isnan(voice.log_f0_median) else f"{math.exp(voice.log_f0_median):.0f} Hz"


@app.command("voice")
@user_errors
def voice(
    seed: SeedOption = 0,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="NAME|FILE", help="A name for --speaker, or a .safetensors file; without it, new-SEED."
        ),
    ] = None,
    spread: Annotated[
        float,
        typer.Option(
            metavar="0..2", help="Deviation from the average voice, up to 2; below 1 more ordinary, above 1 more unusual."
        ),
    ] = 1.0,
    device: DeviceOption = Device.auto,
    checkpoint: CheckpointOption = "default",
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Generate a new voice and save it for --speaker. It has no source, so there is one voice per seed.

    Example: vcae generate voice --seed 7 -o nova
    """
    name = f"new-{seed}" if output is None else output
    path = voice_target(name)
    check_target(path, force)
    find(checkpoint)
    with progress("generating a voice", quiet):
        from vcae.tasks.model import load
        from vcae.voice.file import save_voice
        from vcae.voice.new import new_voice

        model = load(checkpoint, device.value)
        drawn = new_voice(model, seed, spread)
    save_voice(
        drawn, path, {"clips": [], "generated": {"seed": seed, "spread": spread}, "made_by": f"vcae {__version__}"}, force
    )
    if quiet:
        return
    values = {"name": name, "path": str(path), "seed": seed, "spread": spread, "bytes": path.stat().st_size}
    values["f0_hz"] = round(math.exp(drawn.log_f0_median), 1)
    typer.echo(json_module.dumps(values) if json else f"saved {name}: a new voice of {_pitch(drawn)}, {path}")


@app.command("speech")
@user_errors
def speech(
    speaker: Annotated[
        list[str],
        typer.Option(
            "--speaker", "-s", metavar="VOICE", help="Target voice: a clip, or a saved or generated voice; weights mix: a:0.7."
        ),
    ],
    seconds: Annotated[float, typer.Option(metavar="SECONDS", help="Duration, 0.5 to 600 s.")] = 5.0,
    seed: SeedOption = 0,
    temperature: Annotated[
        float, typer.Option(metavar="NUMBER", help="Below 1: more usual sounds; above 1: more unusual ones.")
    ] = 1.0,
    top_p: Annotated[
        float,
        typer.Option("--top-p", metavar="0..1", help="Sample only from the most likely units with this total probability."),
    ] = 0.9,
    speed: SpeedOption = 1.0,
    formant: FormantOption = 0.0,
    expression: ExpressionOption = 1.0,
    watermark: WatermarkOption = True,
    output: OutputOption = None,
    device: DeviceOption = Device.auto,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Generate babble in the voice of --speaker: speech-like sound without words. It has no source, so there is one sound per seed.

    Example: vcae generate speech --seed 2 --speaker nova -o babble.wav
    """
    options = BabbleOptions(seconds, seed, temperature, top_p, speed, formant, expression, watermark)
    from vcae.audio.io import Sound, check_output, write_sound

    speakers = [parse_speaker(text) for text in speaker]
    target = output_path(
        output if output is not None else f"babble-{seed}.wav", [str(file) for s in speakers for file in s.files], "babble"
    )
    check_output(target, force)
    clips = read_clips(speakers)
    with progress("babbling", quiet):
        from vcae.tasks.babble import babble
        from vcae.tasks.model import load

        watch = Stopwatch()
        model = load(DISCRETE, device.value)
        done = babble(model, _voice_for(model, speakers, clips, device), options)
    sound = Sound(done.wav.numpy(), model.sample_rate)
    write_sound(target, sound, provenance(model.checkpoint, "babbled"), force, sys.stdout.buffer)
    elapsed = watch()
    values = {
        "output": target,
        "speaker": speaker,
        "duration_s": round(sound.duration_s, 4),
        "seed": seed,
        "temperature": temperature,
        "top_p": top_p,
        "speed": speed,
        "formant": formant,
        "expression": expression,
        "watermark": watermark,
        "n_units": len(done.units.units),
        "output_f0_hz": done.output_f0_hz,
        "elapsed_s": round(elapsed, 3),
    }
    sentence = f"wrote {target}: {sound.duration_s:.1f} s of babble in the voice of {', '.join(speaker)}, {elapsed:.1f} s on {model.device}"
    report(values, sentence, target, quiet, json)


def _voice_for(model: Model, speakers: list[Speaker], clips: dict[Path, Sound], device: Device) -> Voice:
    """Return a voice for `model`; if a saved one is from the default checkpoint, all are measured by it and transferred."""
    from vcae.tasks.model import load
    from vcae.voice.file import read_voice_facts
    from vcae.voice.new import carry_voice

    owners = {read_voice_facts(s.path)["sha256"] for s in speakers if s.saved}
    if not owners - {model.checkpoint.sha256}:
        return find_voice(model, speakers, clips)
    default = load(device=device.value)
    return carry_voice(default, find_voice(default, speakers, clips), model)


@user_errors
def interpolate(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="A clip, or a saved or generated voice.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Another.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the voices, 00.safetensors and on.")
    ],
    steps: Annotated[int, typer.Option(metavar="N", help="Number of voices, both ends included, 2 to 100.")] = 5,
    source: Annotated[
        str | None, typer.Option(metavar="FILE", help="A clip to convert to each voice; each wav is written next to its voice.")
    ] = None,
    device: DeviceOption = Device.auto,
    checkpoint: CheckpointOption = "default",
    seed: SeedOption = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Interpolate voices from FIRST to SECOND, both included.

    It takes two voices; many recordings are converted to one of the results by `vcae convert --speaker`.

    Example: vcae interpolate nova friend.wav --steps 5 -o way
    """
    from vcae.audio.io import check_output, read_sound

    speakers = [parse_speaker(first), parse_speaker(second)]
    if any(s.weight is not None for s in speakers):
        raise ConfigError(
            "voices to interpolate cannot have weights, as each step has its own; leave out the ':' and what follows"
        )
    targets = _step_targets(Path(output), steps)
    find(checkpoint)
    wavs = [str(target.with_suffix(".wav")) for target in targets] if source is not None else []
    for target in targets:
        check_target(target, force)
    for wav in wavs:
        check_output(wav, force)
    clips = read_clips(speakers)
    sound = read_sound(source, sys.stdin.buffer) if source is not None else None
    with progress("interpolating", quiet):
        from vcae.tasks.model import load
        from vcae.voice.file import save_voice
        from vcae.voice.new import between_voices

        model = load(checkpoint, device.value)
        ends = [find_voice(model, [speaker], clips) for speaker in speakers]
        voices = between_voices(model, ends[0], ends[1], steps)
        for n, (between, target) in enumerate(zip(voices, targets, strict=True)):
            facts = {"clips": [Path(first).name, Path(second).name], "share": n / (steps - 1), "made_by": f"vcae {__version__}"}
            save_voice(between, target, facts, force)
        if sound is not None:
            _convert_to(model, sound, voices, wavs, seed, force)
    values = {"output": output, "steps": steps, "voices": [str(t) for t in targets], "conversions": wavs}
    pitches = f"{_pitch(voices[0])} to {_pitch(voices[-1])}"
    said = f"wrote {steps} voices{' and their conversions' if wavs else ''} to {output}: {pitches}, on {model.device}"
    report(values, said, output, quiet, json)


def _step_targets(folder: Path, steps: int) -> list[Path]:
    if not 2 <= steps <= MAX_STEPS:
        raise ConfigError(f"--steps is {steps}; allowed are 2 to {MAX_STEPS}")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder with -o")
    return [folder / f"{n:02d}.safetensors" for n in range(steps)]


def _convert_to(model: Model, sound: Sound, voices: list[Voice], wavs: list[str], seed: int, force: bool) -> None:
    from vcae.audio.io import Sound, write_sound
    from vcae.tasks.convert import convert

    for voice, wav in zip(voices, wavs, strict=True):
        done = Sound(convert(model, sound, voice, ConvertOptions(seed=seed)).wav.numpy(), model.sample_rate)
        write_sound(wav, done, provenance(model.checkpoint, "converted"), force, sys.stdout.buffer)
