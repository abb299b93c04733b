"""`vcae convert`: the words of a source in the voice of one or several references."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from vcae.errors import ConfigError
from vcae.files import provenance
from vcae.options import ConvertOptions
from vcae.voice.speakers import find_voice, parse_speaker, read_clips

if TYPE_CHECKING:
    from vcae.cli.folder import Run


class Loudness(str, Enum):
    """Whose loudness the result has."""

    source = "source"
    flat = "flat"


class Engine(str, Enum):
    """What does many conversions."""

    local = "local"
    ray = "ray"


@user_errors
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="What is said: a sound file, '-' for a wav on standard input; or a folder, or a CSV with the columns source, speaker[, output]."
        ),
    ],
    speaker: Annotated[
        list[str] | None,
        typer.Option(
            "--speaker",
            "-s",
            help="Who shall say it: a clip, or a saved voice's name; repeat it for more clips, or mix voices with weights: a.wav:0.7.",
        ),
    ] = None,
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
    denoise: Annotated[bool, typer.Option("--denoise", help="Clean the source and the clips of --speaker first.")] = False,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = "default",
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
    out_dir: Annotated[Path | None, typer.Option(help="Folder for the outputs of a folder or table; its tree is kept.")] = None,
    glob: Annotated[
        str | None, typer.Option(help="Which files of a folder, such as '*.flac'; all sound files by default.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes for a folder or table; 0: one a core.")] = 0,
    engine: Annotated[
        Engine, typer.Option(help="For a folder or table: processes of this machine, or a Ray cluster.")
    ] = Engine.local,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster, such as auto; without it one is started here.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what a run before has done rightly.")] = False,
) -> None:
    """Convert SOURCE to the voice of --speaker; of a folder or table, every recording, and exit with 1 if any failed."""
    from vcae.cli.folder import Run, is_many, needed_folder

    options: dict[str, Any] = {
        "pitch": pitch,
        "strength": strength,
        "match": match,
        "detail": detail,
        "loudness": loudness.value,
        "seed": seed,
        "denoise": denoise,
    }
    chosen = ConvertOptions(**options)
    if is_many(source):
        run = Run(needed_folder(source, output, out_dir), glob, jobs, resume, force, quiet, json, engine.value, address)
        _convert_many(source, speaker or [], checkpoint, device.value, options, run)
        return
    if out_dir is not None or glob is not None or resume or jobs:
        raise ConfigError(
            f"{source} is no folder or .csv table; --out-dir, --glob, --jobs and --resume are for those, so use -o"
        )
    speaker = _needed_speakers(speaker)
    from vcae.audio.io import SoundReader, check_output, write_blocks

    speakers = [parse_speaker(text) for text in speaker]
    target = output_path(output, [source, *(str(s.path) for s in speakers)], "converted")
    check_output(target, force)
    with SoundReader(source, sys.stdin.buffer) as sound:
        clips = read_clips(speakers)
        with working("loading the model", quiet):
            from vcae.tasks.convert import convert_long
            from vcae.tasks.model import load

            watch = Stopwatch()
            model = load(checkpoint, device.value)
        with working("converting", quiet):
            done = convert_long(model, sound, find_voice(model, speakers, clips, denoise), chosen)
            comment = provenance(model.checkpoint, "converted")
            write_blocks(target, done.blocks, model.sample_rate, comment, force, sys.stdout.buffer)
    elapsed = watch()
    values = {
        "source": source,
        "speaker": speaker,
        "output": target,
        "duration_s": round(done.duration_s, 3),
        "reference_speech_s": round(done.reference_speech_s, 2),
        "source_f0_hz": round(done.source_f0_hz, 1),
        "output_f0_hz": round(done.output_f0_hz, 1),
        **options,
        "device": str(model.device),
        "checkpoint": model.checkpoint.path.stem,
        "sha256": model.checkpoint.sha256,
        "elapsed_s": round(elapsed, 3),
    }
    sentence = (
        f"wrote {target}: {done.duration_s:.1f} s in the voice of {', '.join(speaker)} ({done.reference_speech_s:.1f} s of speech), "
        f"{_pitch_sentence(done.source_f0_hz, done.output_f0_hz)}, "
        f"{elapsed:.1f} s on {model.device} with checkpoint {model.checkpoint.path.stem}"
    )
    report(values, sentence, target, quiet, json)


def _needed_speakers(speaker: list[str] | None) -> list[str]:
    if not speaker:
        raise ConfigError("no --speaker was given; name at least one clip, or a saved voice, of the voice to take")
    return speaker


def _convert_many(source: str, speaker: list[str], checkpoint: str, device: str, options: dict[str, Any], run: Run) -> None:
    from vcae.batch.workers import Settings
    from vcae.cli.folder import convert_many

    if Path(source).is_dir():
        for text in _needed_speakers(speaker):
            parse_speaker(text)
    elif speaker:
        raise ConfigError(f"{source} names its own speakers; leave --speaker out")
    convert_many(source, Settings(checkpoint, device, options, tuple(speaker)), run)


def _pitch_sentence(source_hz: float, output_hz: float) -> str:
    if source_hz != source_hz:
        return "no voiced sound in the source"
    return f"median F0 {source_hz:.0f} -> {output_hz:.0f} Hz"
