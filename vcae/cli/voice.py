"""`vcae voice`: saved voices, for `--speaker NAME`."""

from __future__ import annotations

import datetime
import json as json_module
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from vcae.cli.common import CheckpointOption, Device, DeviceOption, ForceOption, JsonOption, QuietOption, progress, user_errors
from vcae.cli.help import App
from vcae.errors import ConfigError
from vcae.model_file import find
from vcae.options import AUTO
from vcae.version import __version__
from vcae.voice.speakers import find_voice, parse_speaker, read_clips

app = App(help="Voices saved under a name, for --speaker NAME.")


@app.command("save")
@user_errors
def save(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, '.', '_' and '-'.")],
    clips: Annotated[
        list[str],
        typer.Argument(
            metavar="CLIPS", help="Clips of the voice; or several voices with weights, such as a.wav:0.7 b.wav:0.3."
        ),
    ],
    author: Annotated[
        str, typer.Option(metavar="TEXT", help="Contact for questions about this voice; stored in the file.")
    ] = "",
    denoise: Annotated[
        bool | None,
        typer.Option(
            "--denoise/--no-denoise", help="Denoise the clips first, or not. By default, noisy ones are.", show_default=False
        ),
    ] = None,
    device: DeviceOption = Device.auto,
    checkpoint: CheckpointOption = "default",
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Measure a voice from CLIPS, which are all needed, and save it as NAME.

    Example: vcae voice save alice clip1.wav clip2.wav
    """
    from vcae.voice.shelf import voice_path

    path = voice_path(name)
    if path.exists() and not force:
        raise ConfigError(f"a voice called {name} exists ({path}); add --force to replace it, or take another name")
    find(checkpoint)
    cleaned = AUTO if denoise is None else denoise
    speakers = [parse_speaker(clip) for clip in clips]
    sounds = read_clips(speakers)
    with progress("measuring the voice", quiet):
        from vcae.tasks.model import load
        from vcae.voice.file import save_voice

        model = load(checkpoint, device.value)
        voice = find_voice(model, speakers, sounds, cleaned)
    provenance = {
        "clips": [Path(clip).name for clip in clips],
        "author": author,
        "denoise": cleaned,
        "made_by": f"vcae {__version__}",
        "made_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    save_voice(voice, path, provenance, force)
    if quiet:
        return
    values = {
        "name": name,
        "path": str(path),
        "speech_s": round(voice.speech_s, 2),
        "bytes": path.stat().st_size,
        "warnings": list(voice.warnings),
        **provenance,
    }
    typer.echo(json_module.dumps(values) if json else f"saved {name}: {voice.speech_s:.1f} s of speech, {path}")


@app.command("list")
@user_errors
def list_voices(json: JsonOption = False) -> None:
    """List the saved voices.

    Example: vcae voice list
    """
    from vcae.voice.shelf import SUFFIX, voices_folder

    rows = [describe(path) for path in sorted(voices_folder().glob(f"*{SUFFIX}"))]
    if json:
        typer.echo(json_module.dumps(rows))
    elif not rows:
        typer.echo(f"no voice is saved in {voices_folder()}; save one: vcae voice save NAME CLIP...")
    else:
        for row in rows:
            typer.echo(f"{row['name']:<24} {row.get('error') or sentence(row)}")


def describe(path: Path) -> dict[str, Any]:
    """Return the facts of a saved voice as plain data, or the reason why it cannot be read."""
    from vcae.errors import CheckpointError
    from vcae.voice.file import read_voice_facts

    try:
        return {"name": path.stem, "path": str(path), **read_voice_facts(path)}
    except CheckpointError as error:
        return {"name": path.stem, "path": str(path), "error": str(error)}


def sentence(row: dict[str, Any]) -> str:
    """Return the facts of a saved voice on one line."""
    median = row["log_f0_median"]
    pitch = "unvoiced" if median is None else f"{math.exp(median):.0f} Hz"
    return f"{row['speech_s']:6.1f} s  {pitch:>8}  checkpoint {row['checkpoint']}  from {', '.join(row['provenance'].get('clips', []))}"
