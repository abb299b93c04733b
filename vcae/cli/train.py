"""`vcae voice train`: a saved voice, to which conversions are more similar."""

from __future__ import annotations

import datetime
import json as json_module
import sys
from typing import Annotated

import typer

from vcae.cli.common import (
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    QuietOption,
    Stopwatch,
    progress,
    say,
    user_errors,
)
from vcae.errors import ConfigError, DataError
from vcae.version import __version__
from vcae.voice.shelf import voice_path
from vcae.voice.speakers import parse_speaker, read_clips


def register(app: typer.Typer) -> None:
    """Add the command of this file to `vcae voice`."""
    app.command("train")(train)


@user_errors
def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, '.', '_' and '-'.")],
    clips: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIPS", help="Clips of the voice, or folders of them, with a minute of speech in all; 20 s at least."
        ),
    ],
    author: Annotated[
        str, typer.Option(metavar="TEXT", help="Contact for questions about this voice; stored in the file.")
    ] = "",
    device: DeviceOption = Device.auto,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Fit conversions to the voice of CLIPS, and save it as NAME. It takes less than a minute.

    A sixth of the speech is held out. If conversions have not become more similar to it, nothing is saved, and the exit code is 2.

    Example: vcae voice train alice clip1.wav clip2.wav
    """
    path = voice_path(name)
    if path.exists() and not force:
        raise ConfigError(f"a voice called {name} exists ({path}); add --force to replace it, or take another name")
    speakers = [parse_speaker(clip) for clip in clips]
    for clip, speaker in zip(clips, speakers, strict=True):
        if speaker.saved or speaker.weight is not None:
            raise ConfigError(f"{clip} is a saved voice or has a weight; training needs recordings of one voice")
    sounds = list(read_clips(speakers).values())
    watch = Stopwatch()
    with progress("training", quiet) as shown:
        from vcae.tasks.model import load
        from vcae.voice.file import save_voice
        from vcae.voice.train import train_voice

        model = load(device=device.value)
        done = train_voice(model, sounds, shown)
    figures = (
        f"distance to {done.held_out_s:.0f} s of held-out speech {done.before_db:.2f} dB before, {done.after_db:.2f} dB after"
    )
    if done.voice is None:
        raise DataError(
            f"the training made the voice worse ({figures}); nothing was saved: use `vcae voice save`, or more clips"
        )
    provenance = {
        "clips": [file.name for speaker in speakers for file in speaker.files],
        "author": author,
        "made_by": f"vcae {__version__}",
        "made_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "distance_db_before": round(done.before_db, 3),
        "distance_db_after": round(done.after_db, 3),
    }
    save_voice(done.voice, path, provenance, force)
    if quiet:
        return
    seconds = round(watch(), 1)
    if json:
        values = {"name": name, "path": str(path), "speech_s": round(done.speech_s, 2), "held_out_s": round(done.held_out_s, 2)}
        values |= {"bytes": path.stat().st_size, "elapsed_s": seconds, "warnings": list(done.voice.warnings), **provenance}
        typer.echo(json_module.dumps(values))
        return
    say(f"saved {name}: trained on {done.speech_s:.0f} s of speech in {seconds:.0f} s; {figures}; {path}", sys.stdout)
