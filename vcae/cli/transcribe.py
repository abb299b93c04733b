"""`vcae transcribe`: recordings to text."""

from __future__ import annotations

import sys
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcae.batch.transcriber import TranscriptWriter
from vcae.cli.collect import Collected, collect, plan_collected
from vcae.cli.common import Device, DeviceOption, choices, report
from vcae.cli.run import work
from vcae.cli.sources import Run, SourcesArgument, takes_many
from vcae.errors import ConfigError, DataError
from vcae.files import STDIO, check_target, write_file

if TYPE_CHECKING:
    from vcae.text.transcript import Transcript


class Kind(str, Enum):
    """Symbols of a transcript."""

    words = "words"
    phones = "phones"
    letters = "letters"


class Format(str, Enum):
    """Formats of transcripts."""

    text = "text"
    json = "json"
    srt = "srt"
    vtt = "vtt"
    textgrid = "textgrid"


@takes_many
def transcribe(
    sources: SourcesArgument,
    run: Run,
    kind: Annotated[
        Kind,
        typer.Option(
            "--as",
            metavar=choices(Kind),
            help="words of a lexicon of 60,000; phones (ARPAbet); letters as they sound, without a lexicon.",
        ),
    ] = Kind.words,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="One file for all sources; standard output without it. Several: --out-dir."
        ),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(metavar=choices(Format), help="Format; by default by the output's suffix, or text."),
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Write what is spoken in SOURCES, with times in all formats but text.

    The recogniser is small and learned English from few voices: it gets about half of the words of a new voice wrong. For transcripts
    to read, use Whisper; this is for phones with times, and for comparing recordings.

    Example: vcae transcribe talk.wav -o talk.srt
    """
    from vcae.text.transcript import FORMATS, SUFFIXES

    output = None if output == STDIO else output
    suffix = Path(output or "").suffix.lower()
    form = format.value if format is not None else SUFFIXES.get(suffix, "text")
    if output is not None and format is None and suffix not in SUFFIXES:
        raise ConfigError(f"{output} has the suffix {suffix!r}; allowed are {', '.join(SUFFIXES)}, or give --format")
    build = partial(TranscriptWriter, kind.value, form, device.value)
    if run.out_dir is not None:
        work(build, sources, output, run, ending=FORMATS[form])
        return
    jobs = plan_collected(TranscriptWriter, sources, run)
    if len(jobs) > 1 and form not in ("text", "json"):
        raise ConfigError(f"{len(jobs)} recordings do not fit in one {form} file; name a folder with --out-dir")
    if output is not None:
        if str(Path(output).resolve()) in {str(Path(job.source).resolve()) for job in jobs if job.source != STDIO}:
            raise DataError(f"{output} is an input too; choose another output with -o, so that it is not lost")
        check_target(Path(output), run.force)
    found = collect(jobs, build, run)
    made: list[Transcript] = [outcome.value for outcome in found.made]
    write_file(output or STDIO, _format_all(made, form, len(jobs) > 1), sys.stdout.buffer)
    if output is not None:
        _report(output, kind, found, run)
    found.leave()


def _format_all(made: list[Transcript], form: str, several: bool) -> str:
    """Return one text for all transcripts: with several, each line of plain text begins with the name and a tab."""
    from vcae.text.transcript import format_transcript

    if several and form == "text":
        return "".join(f"{' '.join(one.name.split())}\t{one.text}\n" for one in made)
    return "".join(format_transcript(one, form) for one in made)


def _report(output: str, kind: Kind, found: Collected, run: Run) -> None:
    n = sum(outcome.facts[f"n_{kind.value}"] for outcome in found.made)
    total, about = sum(outcome.duration_s for outcome in found.made), found.made[0].facts
    values = {"output": output, "n_files": len(found.made), f"n_{kind.value}": n, "duration_s": round(total, 3)}
    values |= {"failed": found.failed, "device": about["device"]}
    sentence = f"wrote {output}: {n} {kind.value} of {len(found.made)} recording{'s' * (len(found.made) != 1)}, {total:.1f} s"
    report(values, f"{sentence}, on {about['device']}", output, run.quiet, run.json)
