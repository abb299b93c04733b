"""`vcae say`: text to speech in any voice."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

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
from vcae.cli.convert import ExpressionOption, FormantOption, SpeedOption, WatermarkOption
from vcae.errors import DataError
from vcae.files import STDIO, provenance
from vcae.options import SayOptions
from vcae.voice.speakers import find_voice, parse_speaker, read_clips

if TYPE_CHECKING:
    import numpy as np

# Most characters of a text: two days of speech.
MAX_CHARACTERS = 2_000_000
DEFAULT_NAME = "said.wav"


def read_text(text: str) -> str:
    """Return a text given on the command line, or all of standard input for `-`.

    Raises:
        DataError: If it is too long, or not UTF-8.
    """
    if text == STDIO:
        data = sys.stdin.buffer.read(4 * MAX_CHARACTERS + 1)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"standard input is not a text in UTF-8 ({error.reason} at byte {error.start})") from error
    if len(text) > MAX_CHARACTERS:
        raise DataError(f"the text has over {MAX_CHARACTERS:,} characters; say it in parts")
    return text


@user_errors
def say(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="An English text, in quotes; '-' reads it from standard input.")],
    speaker: Annotated[
        list[str],
        typer.Option(
            "--speaker", "-s", metavar="VOICE", help="Target voice: a clip, or a saved or generated voice; weights mix: a:0.7."
        ),
    ],
    output: OutputOption = None,
    speed: SpeedOption = 1.0,
    pitch: Annotated[
        str, typer.Option(metavar="auto|SEMITONES", help="auto: the voice's range; a number: semitones above it.")
    ] = "auto",
    formant: FormantOption = 0.0,
    expression: ExpressionOption = 1.0,
    watermark: WatermarkOption = True,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Say TEXT in the voice of --speaker.

    It learned to read from four American readers. Numbers are read as words, and letters of other scripts are left out. Long texts are
    said sentence by sentence.

    Example: vcae say "Good morning, everyone." --speaker friend.wav -o said.wav
    """
    options = SayOptions(pitch, speed, formant, expression, seed, watermark)
    from vcae.audio.io import check_output, write_blocks
    from vcae.text.spelling import plain_text, sentences

    given = read_text(text)
    # A text without words is an error before the models are loaded.
    next(sentences(given))
    lost = plain_text(given)[1]
    speakers = [parse_speaker(name) for name in speaker]
    target = output_path(output if output is not None else DEFAULT_NAME, [str(file) for s in speakers for file in s.files], "")
    check_output(target, force)
    clips = read_clips(speakers)
    with progress("saying", quiet) as tell:
        from vcae.audio.watermark import mark_blocks
        from vcae.tasks.model import load
        from vcae.text.say import say_sentences

        watch = Stopwatch()
        model = load(device=device.value)
        voice = find_voice(model, speakers, clips)
        counts = {"sentences": 0, "words": 0, "samples": 0}
        total = sum(len(sentence.words) for sentence in sentences(given))

        def blocks() -> Iterator[np.ndarray]:
            for said in say_sentences(model, given, voice, options):
                counts["sentences"] += 1
                counts["words"] += len(said.words)
                counts["samples"] += len(said.wav)
                tell(counts["words"] / total)
                yield said.wav

        made = mark_blocks(blocks(), model.sample_rate) if watermark else blocks()
        write_blocks(target, made, model.sample_rate, provenance(model.checkpoint, "said"), force, sys.stdout.buffer)
    elapsed, seconds = watch(), counts["samples"] / model.sample_rate
    values = {"output": target, "speaker": speaker, "duration_s": round(seconds, 4), "sentences": counts["sentences"]}
    values |= {"words": counts["words"], "letters_left_out": lost, "speed": speed, "pitch": pitch, "formant": formant}
    values |= {"expression": expression, "seed": seed, "watermark": watermark, "elapsed_s": round(elapsed, 3)}
    sentence = f"wrote {target}: {seconds:.1f} s, {counts['words']} words in the voice of {', '.join(speaker)}, {elapsed:.1f} s on {model.device}"
    if lost:
        sentence += f"; {lost} letters of other scripts were left out"
    report(values, sentence, target, quiet, json)
