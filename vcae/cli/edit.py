"""`vcae edit`: other words in a recording, in the same voice."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vcae.cli.common import (
    Device,
    DeviceOption,
    ForceOption,
    JsonOption,
    OutputOption,
    QuietOption,
    SeedOption,
    Stopwatch,
    output_path,
    progress,
    report,
    user_errors,
)
from vcae.errors import ConfigError
from vcae.files import STDIO, provenance


def parse_replacement(text: str) -> tuple[str, str]:
    """Return old and new words of `old=new`.

    Raises:
        ConfigError: If it has another form.
    """
    old, sign, new = text.partition("=")
    if not sign or not old.strip() or not new.strip() or "=" in new:
        raise ConfigError(f'replace is {text!r}; give old and new words as "old=new"')
    return old.strip(), new.strip()


@user_errors
def edit(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Recording of English speech, of at most 10 minutes.")],
    replace: Annotated[
        str,
        typer.Option(
            metavar="OLD=NEW",
            help='Words that are spoken, and words to say in their place: "old=new". What both begin or end with stays as it is and helps to'
            " find the rest.",
        ),
    ],
    output: OutputOption = None,
    nth: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Which one, if the words are spoken several times; 1 is the first.")
    ] = None,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Say other words in SOURCE in place of some of its own, in the same voice.

    You say which words are spoken; they are found by their sounds. All other samples stay as they are. Edit only the voices of people who
    agreed to it, and say that the result was edited: the file has a comment, but no inaudible mark.

    Example: vcae edit talk.wav --replace "see you on monday=see you on friday" -o talk2.wav
    """
    old, new = parse_replacement(replace)
    if source == STDIO:
        raise ConfigError("the recording to edit cannot come from standard input; give a file")
    from vcae.audio.io import Sound, check_output, read_sound
    from vcae.text.change import parse_change
    from vcae.text.edit import MAX_S, edit_sound

    parse_change(old, new)
    target = output_path(output, [source], "edited")
    check_output(target, force)
    with progress("editing", quiet) as tell:
        from vcae.audio.splice import write_spliced
        from vcae.tasks.model import load

        watch = Stopwatch()
        sound = read_sound(source, max_s=MAX_S, mixed=False)
        tell(0.1)
        model = load(device=device.value)
        made = edit_sound(model, sound, old, new, nth, seed)
        tell(0.9)
        whole = Sound(made.wav, made.sample_rate, sound.name)
        exact = write_spliced(
            target, source, whole, (made.start, made.stop), provenance(model.checkpoint, "edited"), force, sys.stdout.buffer
        )
    elapsed, (begin, end) = watch(), made.times_s
    values = {"output": target, "old": old, "new": new, "start_s": round(begin, 3), "end_s": round(end, 3)}
    values |= {"new_end_s": round(begin + (made.stop - made.start) / made.sample_rate, 3), "rest_unchanged": exact}
    values |= {"seed": seed, "elapsed_s": round(elapsed, 3)}
    sentence = f"wrote {target}: {new!r} in place of {old!r} at {begin:.2f} to {end:.2f} s, {elapsed:.1f} s on {model.device}"
    report(values, sentence, target, quiet, json)
