"""`vcae units` and `vcae speak`: recordings to unit sequences, and unit sequences to speech in any voice."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from vcae.cli.common import (
    EXIT_USER_ERROR,
    CheckpointOption,
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    QuietOption,
    SeedOption,
    Stopwatch,
    output_path,
    report,
    user_errors,
    working,
)
from vcae.errors import AudioError, ConfigError, DataError
from vcae.files import STDIO, check_target, provenance, write_file
from vcae.options import SpeakOptions
from vcae.voice.speakers import find_voice, parse_speaker, read_clips

if TYPE_CHECKING:
    from vcae.audio.io import Sound
    from vcae.tasks.model import Model
    from vcae.tasks.unit_files import Units

CHECKPOINT = "vq"
# Of the files taken from a folder; a file that is named is tried whatever its suffix.
SOUND_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".sph"),
)
MAX_NAME_BYTES = 200


class Format(str, Enum):
    """How units are written."""

    jsonl = "jsonl"
    textgrid = "textgrid"
    text = "text"


class Durations(str, Enum):
    """Whose durations units have."""

    auto = "auto"
    file = "file"
    predicted = "predicted"


@contextmanager
def progress(what: str, total: int, quiet: bool) -> Iterator[Callable[[], object]]:
    """Show a bar on a terminal's stderr while several files are worked on; yields what to call after each."""
    if quiet or total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def find_recordings(given: Sequence[str]) -> list[tuple[str, str]]:
    """Return path and name of each recording: files as given, folders' sound files in order.

    A name is the path within the deepest folder that holds everything given, so that no two are alike.

    Raises:
        AudioError: If a folder holds no sound files.
    """
    found: dict[str, str] = {}
    roots = []
    for item in given:
        if item == STDIO:
            found[item] = item
            continue
        path = Path(os.path.abspath(item))
        if not path.is_dir():
            roots.append(str(path.parent))
            found.setdefault(str(path), item)
            continue
        roots.append(str(path))
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SOUND_SUFFIXES and p.is_file())
        kept = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        if not kept:
            raise AudioError(f"the folder {item} holds no sound files ({', '.join(SOUND_SUFFIXES[:6])} ...); give another")
        for p in kept:
            found.setdefault(str(p), str(Path(item) / p.relative_to(path)))
    try:
        root = os.path.commonpath(roots) if roots else ""
    except ValueError:  # On two drives.
        root = ""
    return [
        (shown, "standard input" if path == STDIO else Path(os.path.relpath(path, root) if root else path).as_posix())
        for path, shown in found.items()
    ]


def name_targets(folder: Path, names: Sequence[str], suffix: str) -> list[Path]:
    """Return a file in a folder for each name: with its own folders, never outside, numbered where two are alike."""
    targets: list[Path] = []
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[\x00-\x1f\x7f\ud800-\udc7f\udd00-\udfff]", "_", name.replace("\\", "/"))
        parts = [_shorten(part) for part in PurePosixPath(plain).parts if part.strip("/. ")] or ["units"]
        if PurePosixPath(parts[-1]).suffix.lower() in SOUND_SUFFIXES:
            parts[-1] = PurePosixPath(parts[-1]).stem
        target, n = folder.joinpath(*parts[:-1], parts[-1] + suffix), 1
        # Not every file system tells small letters from capitals.
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
    """Refuse to replace what is read."""
    read = {str(Path(name).resolve()) for name in inputs if name != STDIO}
    for target in targets:
        if str(target.resolve()) in read:
            raise DataError(f"{target} is an input too; choose another output with -o, so that it is not lost")


@user_errors
def units(
    sources: Annotated[list[str], typer.Argument(help="Sound files, folders of them, or '-' for a wav on standard input.")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="File, or for several TextGrids a folder; without it, standard output."),
    ] = None,
    format: Annotated[
        Format | None, typer.Option(help="How to write them; without it, by the output's suffix: .jsonl, .TextGrid or .txt.")
    ] = None,
    collapse: Annotated[bool, typer.Option("--collapse", help="Merge runs of equal units.")] = False,
    plot: Annotated[
        str | None, typer.Option(help="Draw mel and units: a .png for one recording, a folder for several.")
    ] = None,
    checkpoint: CheckpointOption = CHECKPOINT,
    device: DeviceOption = Device.auto,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write what SOURCES say as sequences of discrete units with their times."""
    from vcae.audio.io import read_sound
    from vcae.tasks.unit_files import SUFFIXES, format_units

    output = None if output == STDIO else output
    recordings = find_recordings(sources)
    names = [name for _, name in recordings]
    several = len(recordings) > 1 or any(Path(source).is_dir() for source in sources if source != STDIO)
    form = format.value if format is not None else SUFFIXES.get(Path(output or "").suffix.lower(), "jsonl")
    targets = _unit_targets(output, form, names, several)
    pictures = _picture_targets(plot, names, several)
    paths = [path for path, _ in recordings]
    _keep_inputs([*targets, *pictures], paths)
    for target in [*targets, *pictures]:
        check_target(target, force)
    # A single bad file is told of before a model is loaded.
    ready = {} if several else {paths[0]: read_sound(paths[0], sys.stdin.buffer)}
    failed = 0
    with working("loading the model", quiet):
        from vcae.figures.plot import need_matplotlib
        from vcae.tasks.model import load

        if pictures:
            need_matplotlib()
        model = load(checkpoint, device.value)
        _need_units(model)
    made: list[Units] = []
    with progress("encoding", len(recordings), quiet) as advance:
        for n, (path, name) in enumerate(recordings):
            try:
                sound = ready.get(path) or read_sound(path, sys.stdin.buffer)
                found = _encode(model, sound, name, collapse, pictures[n] if pictures else None)
                if form == "textgrid" and output is not None:
                    write_file(targets[n], format_units([found], form))
                made.append(found)
            except AudioError as error:
                if not several:
                    raise
                failed += 1
                sys.stderr.write("error: " + " ".join(str(error).split()) + "\n")
            advance()
    if made and (output is None or form != "textgrid"):
        text = format_units(made, form)
        if output is None:
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
            sys.stdout.buffer.flush()
        else:
            write_file(targets[0], text)
    if output is not None and made and not quiet:
        total = sum(found.duration_s for found in made)
        n_units = sum(len(found.units) for found in made)
        typer.echo(
            f"wrote {output}: {n_units} units of {len(made)} recording{'s' * (len(made) != 1)}, {total:.1f} s, "
            f"on {model.device} with checkpoint {model.checkpoint.path.stem}"
        )
    if failed:
        raise typer.Exit(EXIT_USER_ERROR)


def _encode(model: Model, sound: Sound, name: str, collapse: bool, picture: Path | None) -> Units:
    """Return the units of a recording, and draw them if a picture is wanted."""
    from vcae.figures.plot import draw_units
    from vcae.tasks.units import recording_units

    seen = model.analyse(sound.wav, sound.sample_rate, sound.name)
    found = recording_units(model, seen, name)
    found = found.collapse() if collapse else found
    if picture is not None:
        draw_units(picture, seen.mel[0], found, model.mel_config)
    return found


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


def _need_units(model: Model) -> None:
    if model.autoencoder.quantizer is None:
        raise ConfigError("this checkpoint has a continuous code and no units; use --checkpoint vq")


@user_errors
def speak(
    units: Annotated[str, typer.Argument(help="Units as `vcae units` writes them, or bare numbers; '-' is standard input.")],
    speaker: Annotated[
        list[str],
        typer.Option(
            "--speaker",
            "-s",
            help="Who shall say it: a clip, or a saved voice's name; repeat it for more clips, or mix voices with weights: a.wav:0.7.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Sound file, or for several sequences a folder; '-' is a wav on standard output."),
    ] = None,
    pitch: Annotated[str, typer.Option(help="auto: the voice's range; a number: semitones above it.")] = "auto",
    durations: Annotated[
        Durations,
        typer.Option(help="auto: the units' own times where they have them; file: only these; predicted: the model's."),
    ] = Durations.auto,
    match: Annotated[
        str, typer.Option(help="How far frames are drawn to the clip's own, 0 to 1; auto: by its length.")
    ] = "auto",
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    checkpoint: CheckpointOption = CHECKPOINT,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Say UNITS in the voice of --speaker, without any recording of the words."""
    options = SpeakOptions(pitch, durations.value, match, seed)
    from vcae.audio.io import Sound, check_output, write_sound
    from vcae.tasks.unit_files import read_units

    speakers = [parse_speaker(text) for text in speaker]
    sequences = read_units(units, sys.stdin.buffer)
    targets = _speech_targets(output, units, [str(s.path) for s in speakers], [s.name for s in sequences])
    for target in targets:
        check_output(target, force)
    clips = read_clips(speakers)
    with working("loading the model", quiet):
        from vcae.tasks.model import load
        from vcae.tasks.units import check_units, speak_units

        watch = Stopwatch()
        model = load(checkpoint, device.value)
        # All of them first: nothing is written when one cannot be spoken.
        for sequence in sequences:
            check_units(model, sequence, options)
        voice = find_voice(model, speakers, clips)
    rows, total = [], 0.0
    with progress("speaking", len(sequences), quiet) as advance:
        for sequence, target in zip(sequences, targets, strict=True):
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
            advance()
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
        raise ConfigError(f"{units} holds {len(names)} sequences; name a folder for them with -o")
    targets = name_targets(Path(output), names, ".wav")
    _keep_inputs(targets, [units, *speakers])
    return [str(target) for target in targets]


def _names_folder(output: str) -> bool:
    return Path(output).is_dir() or output.endswith(("/", os.sep)) or not Path(output).suffix
