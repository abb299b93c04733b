"""`vcae units` and `vcae speak`: recordings to unit sequences, and unit sequences to speech in any voice."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from enum import Enum
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from vcae.batch.jobs import SUFFIXES, is_table
from vcae.batch.listeners import UnitReader
from vcae.cli.common import (
    CheckpointOption,
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    QuietOption,
    SeedOption,
    Stopwatch,
    output_path,
    progress,
    report,
    user_errors,
)
from vcae.cli.run import Collected, Run, SourcesArgument, collect, plan_collected, takes_many, work
from vcae.errors import ConfigError, DataError
from vcae.files import STDIO, check_target, provenance, write_file
from vcae.options import SpeakOptions
from vcae.voice.speakers import find_voice, parse_speaker, read_clips

if TYPE_CHECKING:
    from vcae.tasks.unit_files import Units

CHECKPOINT = "vq"
MAX_NAME_BYTES = 200


class Format(str, Enum):
    """Formats of units."""

    jsonl = "jsonl"
    textgrid = "textgrid"
    text = "text"


class Durations(str, Enum):
    """Sources of the durations of units."""

    auto = "auto"
    file = "file"
    predicted = "predicted"


def name_targets(folder: Path, names: Sequence[str], suffix: str) -> list[Path]:
    """Return a file below a folder for each name, with its subfolders, and numbered if names are equal."""
    targets: list[Path] = []
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[\x00-\x1f\x7f\ud800-\udc7f\udd00-\udfff]", "_", name.replace("\\", "/"))
        parts = [_shorten(part) for part in PurePosixPath(plain).parts if part.strip("/. ")] or ["units"]
        if PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES:
            parts[-1] = PurePosixPath(parts[-1]).stem
        target, n = folder.joinpath(*parts[:-1], parts[-1] + suffix), 1
        # Some file systems ignore case.
        while str(target).lower() in taken:
            n += 1
            target = folder.joinpath(*parts[:-1], f"{parts[-1]}-{n}{suffix}")
        taken.add(str(target).lower())
        targets.append(target)
    return targets


def _shorten(part: str) -> str:
    part = part.replace(":", "_")
    return os.fsdecode(os.fsencode(part)[:MAX_NAME_BYTES]) if len(os.fsencode(part)) > MAX_NAME_BYTES else part


def _is_folder(output: str, suffixes: Sequence[str]) -> bool:
    return Path(output).is_dir() or output.endswith(("/", os.sep)) or Path(output).suffix.lower() not in suffixes


def _keep_inputs(targets: Sequence[Path], inputs: Sequence[str]) -> None:
    """Check that no output replaces an input."""
    read = {str(Path(name).resolve()) for name in inputs if name != STDIO}
    for target in targets:
        if str(target.resolve()) in read:
            raise DataError(f"{target} is an input too; choose another output with -o, so that it is not lost")


@takes_many
def units(
    sources: SourcesArgument,
    run: Run,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="One file for all, or for several TextGrids a folder; without it, standard output."
        ),
    ] = None,
    format: Annotated[
        Format | None, typer.Option(help="Format; by default by the output's suffix: .jsonl, .TextGrid or .txt.")
    ] = None,
    collapse: Annotated[bool, typer.Option("--collapse", help="Merge runs of equal units.")] = False,
    plot: Annotated[
        str | None, typer.Option(help="Draw mel and units: a .png for one recording, a folder for several.")
    ] = None,
    checkpoint: CheckpointOption = CHECKPOINT,
    device: DeviceOption = Device.auto,
) -> None:
    """Encode SOURCES as sequences of discrete units with their times. Exits with 1 if one of several failed."""
    from vcae.tasks.unit_files import FORMATS, SUFFIXES, format_units

    output = None if output == STDIO else output
    form = format.value if format is not None else SUFFIXES.get(Path(output or "").suffix.lower(), "jsonl")
    jobs = plan_collected(UnitReader, sources, run)
    names = [job.name for job in jobs]
    several = len(jobs) > 1 or is_table(sources) or any(os.path.isdir(source) for source in sources)
    pictures = _picture_targets(plot, names, several)
    targets = [] if run.out_dir is not None else _unit_targets(output, form, names, several)
    _keep_inputs([*targets, *pictures], [job.source for job in jobs])
    for target in [*targets, *pictures]:
        check_target(target, run.force)
    drawn = dict(zip(names, map(str, pictures), strict=bool(pictures)))
    build = partial(UnitReader, form, collapse, drawn, checkpoint, device.value)
    if run.out_dir is not None:
        work(UnitReader, build, sources, output, run, ending=FORMATS[form])
        return
    found = collect(jobs, UnitReader, build, run)
    made: list[Units] = [outcome.value for outcome in found.made]
    if made and form == "textgrid" and output is not None:
        written = dict(zip(names, targets, strict=True))
        for one in made:
            write_file(written[one.name], format_units([one], form))
    elif made:
        write_file(str(targets[0]) if targets else STDIO, format_units(made, form), sys.stdout.buffer)
    if made and (output is not None or run.json):
        _report_units(output or STDIO, found, run)
    found.leave()


def _report_units(output: str, found: Collected, run: Run) -> None:
    n_units = sum(outcome.facts["n_units"] for outcome in found.made)
    total, first = sum(outcome.duration_s for outcome in found.made), found.made[0].facts
    about = {name: first[name] for name in ("device", "checkpoint", "sha256")}
    values = {
        "output": output,
        "n_files": len(found.made),
        "n_units": n_units,
        "duration_s": round(total, 3),
        "failed": found.failed,
    }
    sentence = (
        f"wrote {output}: {n_units} units of {len(found.made)} recording{'s' * (len(found.made) != 1)}, {total:.1f} s, "
        f"on {about['device']} with checkpoint {about['checkpoint']}"
    )
    report(values | about, sentence, output, run.quiet, run.json)


def _unit_targets(output: str | None, form: str, names: Sequence[str], several: bool) -> list[Path]:
    from vcae.tasks.unit_files import FORMATS, SUFFIXES

    suffix = FORMATS[form]
    if output is None:
        if form == "textgrid" and len(names) > 1:
            raise ConfigError(f"{len(names)} TextGrids do not fit on standard output; name a folder with -o")
        return []
    if form != "textgrid":
        return [Path(output)]
    if Path(output).suffix.lower() in SUFFIXES and not Path(output).is_dir():
        if several:
            raise ConfigError(f"{output} is one file, and a TextGrid holds one recording; name a folder and --format textgrid")
        return [Path(output)]
    return name_targets(Path(output), names, suffix)


def _picture_targets(plot: str | None, names: Sequence[str], several: bool) -> list[Path]:
    if plot is None:
        return []
    if not _is_folder(plot, [".png"]):
        if several:
            raise ConfigError(f"{plot} is one picture for {len(names)} recordings; name a folder with --plot")
        return [Path(plot)]
    if Path(plot).suffix and not Path(plot).is_dir() and not several:
        raise ConfigError(f"{plot} has the suffix {Path(plot).suffix!r}; pictures are .png")
    return name_targets(Path(plot), names, ".png")


@user_errors
def speak(
    units: Annotated[str, typer.Argument(help="Units from `vcae units`, or plain numbers; '-' is standard input.")],
    speaker: Annotated[
        list[str],
        typer.Option(
            "--speaker",
            "-s",
            help="Target voice: a clip, or a saved voice's name; repeat it for more clips, or mix voices with weights: a.wav:0.7.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Sound file, or for several sequences a folder; '-' is a wav on standard output."),
    ] = None,
    pitch: Annotated[str, typer.Option(help="auto: the voice's range; a number: semitones above it.")] = "auto",
    durations: Annotated[
        Durations,
        typer.Option(help="auto: the units' own times if they have them; file: only these; predicted: the model's."),
    ] = Durations.auto,
    match: Annotated[
        str,
        typer.Option(
            help="How strongly to pull frames towards similar frames of the reference, 0 to 1; auto: depends on its length."
        ),
    ] = "auto",
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = CHECKPOINT,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Speak UNITS in the voice of --speaker."""
    options = SpeakOptions(pitch, durations.value, match, seed)
    from vcae.audio.io import Sound, check_output, write_sound
    from vcae.tasks.unit_files import read_units

    speakers = [parse_speaker(text) for text in speaker]
    sequences = read_units(units, sys.stdin.buffer)
    targets = _speech_targets(output, units, [str(s.path) for s in speakers], [s.name for s in sequences])
    for target in targets:
        check_output(target, force)
    clips = read_clips(speakers)
    with progress("loading the model", quiet):
        from vcae.tasks.model import load
        from vcae.tasks.units import check_units, speak_units

        watch = Stopwatch()
        model = load(checkpoint, device.value)
        # All are checked first, so that nothing is written if one cannot be spoken.
        for sequence in sequences:
            check_units(model, sequence, options)
        voice = find_voice(model, speakers, clips)
    rows, total = [], 0.0
    with progress("speaking", quiet) as tell:
        for n, (sequence, target) in enumerate(zip(sequences, targets, strict=True)):
            done = speak_units(model, sequence, voice, options)
            sound = Sound(done.wav.numpy(), model.sample_rate)
            write_sound(target, sound, provenance(model.checkpoint, "spoken"), force, sys.stdout.buffer)
            total += sound.duration_s
            predicted = sequence.lengths is None or durations is Durations.predicted
            rows.append(
                {
                    "file": sequence.name,
                    "output": target,
                    "n_units": len(sequence.units),
                    "n_samples": len(sound.wav),
                    "duration_s": round(sound.duration_s, 4),
                    "durations": "predicted" if predicted else "file",
                    "output_f0_hz": None if done.output_f0_hz != done.output_f0_hz else round(done.output_f0_hz, 1),
                }
            )
            tell((n + 1) / len(sequences))
    elapsed = watch()
    values = {
        "units": units,
        "speaker": speaker,
        "outputs": rows,
        "pitch": pitch,
        "match": match,
        "seed": seed,
        "device": str(model.device),
        "checkpoint": model.checkpoint.path.stem,
        "sha256": model.checkpoint.sha256,
        "elapsed_s": round(elapsed, 3),
    }
    what = targets[0] if len(targets) == 1 else f"{len(targets)} files to {output}"
    sentence = (
        f"wrote {what}: {total:.1f} s in the voice of {', '.join(speaker)}, {elapsed:.1f} s on {model.device} "
        f"with checkpoint {model.checkpoint.path.stem}"
    )
    report(values, sentence, targets[0], quiet, json)


def _speech_targets(output: str | None, units: str, speakers: Sequence[str], names: Sequence[str]) -> list[str]:
    from vcae.audio.io import FORMATS

    if len(names) == 1 and (output in (None, STDIO) or not _names_folder(str(output))):
        return [output_path(output, [units, *speakers], "spoken")]
    if output is None or output == STDIO or Path(output).suffix.lower() in FORMATS:
        raise ConfigError(f"{units} has {len(names)} sequences; give a folder for them with -o")
    targets = name_targets(Path(output), names, ".wav")
    _keep_inputs(targets, [units, *speakers])
    return [str(target) for target in targets]


def _names_folder(output: str) -> bool:
    return Path(output).is_dir() or output.endswith(("/", os.sep)) or not Path(output).suffix
