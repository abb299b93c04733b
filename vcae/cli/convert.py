"""`vcae convert`: the words of a source in the voice of one or several references."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Annotated

import typer

from vcae.cli.common import (
    CheckpointOption,
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    OutputOption,
    QuietOption,
    SeedOption,
    Stopwatch,
    output_path,
    report,
    user_errors,
    working,
)
from vcae.cli.voice import find_voice, parse_speaker, read_clips
from vcae.tasks.provenance import provenance


class Loudness(str, Enum):
    """Whose loudness the result has."""

    source = "source"
    flat = "flat"


@user_errors
def convert(
    source: Annotated[str, typer.Argument(help="What is said: a sound file, or '-' for a wav on standard input.")],
    speaker: Annotated[
        list[str],
        typer.Option(
            "--speaker",
            "-s",
            help="Who shall say it: a clip, or a saved voice's name; repeat it for more clips, or mix voices with weights: a.wav:0.7.",
        ),
    ],
    output: OutputOption = None,
    pitch: Annotated[str, typer.Option(help="auto: the voice's range; keep: the source's; a number: semitones.")] = "auto",
    strength: Annotated[float, typer.Option(help="0: the source's own voice, 1: the voice of --speaker.")] = 1.0,
    match: Annotated[
        str, typer.Option(help="How far frames are drawn to the clip's own, 0 to 1; auto: by its length.")
    ] = "auto",
    detail: Annotated[
        str,
        typer.Option(help="How much of the source's detail is kept, 0 to 1; it carries words. auto: all, or none with units."),
    ] = "auto",
    loudness: Annotated[Loudness, typer.Option(help="source: follow its loudness; flat: only its level.")] = Loudness.source,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = "default",
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Convert SOURCE to the voice of --speaker."""
    from vcae.audio.io import Sound, check_output, read_sound, write_sound

    speakers = [parse_speaker(text) for text in speaker]
    target = output_path(output, [source, *(str(s.path) for s in speakers)], "converted")
    check_output(target, force)
    sound = read_sound(source, sys.stdin.buffer)
    clips = read_clips(speakers)
    with working("loading the model", quiet):
        from vcae.tasks.convert import ConvertOptions
        from vcae.tasks.convert import convert as work
        from vcae.tasks.model import load

        options = ConvertOptions(pitch, strength, match, detail, loudness.value, seed)
        watch = Stopwatch()
        model = load(checkpoint, device.value)
    with working("converting", quiet):
        done = work(model, sound, find_voice(model, speakers, clips), options)
    write_sound(
        target, Sound(done.wav.numpy(), model.sample_rate), provenance(model.checkpoint, "converted"), force, sys.stdout.buffer
    )
    elapsed = watch()
    values = {
        "source": source,
        "speaker": speaker,
        "output": target,
        "duration_s": round(sound.duration_s, 3),
        "reference_speech_s": round(done.reference_speech_s, 2),
        "source_f0_hz": round(done.source_f0_hz, 1),
        "output_f0_hz": round(done.output_f0_hz, 1),
        "pitch": pitch,
        "strength": strength,
        "match": match,
        "detail": detail,
        "loudness": loudness.value,
        "seed": seed,
        "device": str(model.device),
        "checkpoint": model.checkpoint.path.stem,
        "sha256": model.checkpoint.sha256,
        "elapsed_s": round(elapsed, 3),
    }
    sentence = (
        f"wrote {target}: {sound.duration_s:.1f} s in the voice of {', '.join(speaker)} ({done.reference_speech_s:.1f} s of speech), "
        f"{_pitch_sentence(done.source_f0_hz, done.output_f0_hz)}, "
        f"{elapsed:.1f} s on {model.device} with checkpoint {model.checkpoint.path.stem}"
    )
    report(values, sentence, target, quiet, json)


def _pitch_sentence(source_hz: float, output_hz: float) -> str:
    if source_hz != source_hz:
        return "no voiced sound in the source"
    return f"median F0 {source_hz:.0f} -> {output_hz:.0f} Hz"
