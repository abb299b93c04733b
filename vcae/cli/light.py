"""`vcae-light`: conversion without torch, by a folder of graphs. Imports neither torch nor typer, so that it starts at once."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vcae.environment import prepare_command
from vcae.errors import VcaeError
from vcae.version import __version__

EXIT_USER_ERROR = 2


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vcae-light",
        description="Convert SOURCE to the voice of --speaker with onnxruntime, without torch.",
        epilog="Example: vcae-light talk.wav --speaker friend.wav --models graphs -o talk-as-friend.wav",
    )
    parser.add_argument("source", metavar="SOURCE", help="sound file, 0.5 s to ten minutes")
    parser.add_argument("--speaker", "-s", action="append", required=True, metavar="FILE", help="clip of the voice; repeatable")
    parser.add_argument("--models", "-m", required=True, metavar="DIR", help="folder that vcae export onnx wrote")
    parser.add_argument("--output", "-o", metavar="FILE", help="output file (default: NAME.converted.wav)")
    parser.add_argument("--pitch", default="auto", metavar="auto|keep|SEMITONES", help="pitch of the result (default: auto)")
    parser.add_argument("--loudness", choices=("source", "flat"), default="source", help="follow the source's loudness or not")
    parser.add_argument("--denoise", action=argparse.BooleanOptionalAction, help="denoise both; by default, what is noisy")
    parser.add_argument("--rate", type=int, metavar="HZ", help="sample rate of the result (default: the source's)")
    parser.add_argument("--mono", action="store_true", help="one channel")
    parser.add_argument("--watermark", action=argparse.BooleanOptionalAction, default=True, help="mark it as made by vcae")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the vocoder's noise")
    parser.add_argument("--force", action="store_true", help="replace an existing output file")
    parser.add_argument("--version", action="version", version=f"vcae {__version__}")
    return parser


def _convert(given: argparse.Namespace) -> str:
    """Convert, and return a sentence about the result."""
    from vcae.audio.io import channels_of, check_output, rate_of, read_sound, write_sound
    from vcae.light import Graphs, convert, measure_voice
    from vcae.options import AUTO, ConvertOptions

    output = given.output or f"{Path(given.source).stem}.converted.wav"
    check_output(output, given.force)
    denoise = AUTO if given.denoise is None else given.denoise
    graphs = Graphs(given.models)
    source = read_sound(given.source, mixed=given.mono)
    voice = measure_voice(graphs, [read_sound(clip) for clip in given.speaker], denoise)
    for line in (*source.warnings, *voice.warnings):
        sys.stderr.write(f"warning: {line}\n")
    rate = rate_of(output, max(source.sample_rate, graphs.sample_rate), given.rate)
    channels = "keep" if channels_of(output, source.channels) == source.channels else "mono"
    options = ConvertOptions(
        given.pitch, 1.0, given.loudness, given.seed, denoise, watermark=given.watermark, rate=rate, channels=channels
    )
    made = convert(graphs, source, voice, options)
    write_sound(output, made, force=given.force)
    return f"{output}: {made.duration_s:.2f} s at {made.sample_rate} Hz, {voice.speech_s:.1f} s of speech in the references"


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    prepare_command()
    given = _arguments().parse_args(arguments)
    try:
        sentence = _convert(given)
    except VcaeError as error:
        text = str(error).replace("`force=True`", "--force")
        sys.stderr.write(f"error: {text}\n")
        sys.exit(EXIT_USER_ERROR)
    sys.stdout.write(sentence + "\n")


if __name__ == "__main__":
    main()
