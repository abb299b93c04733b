"""`vcae compress` and `vcae decompress`: recordings to a few hundred bytes a second, and back, in any voice."""

from __future__ import annotations

import os
import sys
from pathlib import Path
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
    report,
    say,
    user_errors,
    working,
)
from vcae.cli.folder import GlobOption, JobsOption, OutDirOption, ResumeOption, needed_folder, refuse_folder_options
from vcae.files import check_target, provenance, write_file
from vcae.options import check_kbps
from vcae.voice.speakers import find_voice, parse_speaker, read_clips


@user_errors
def compress(
    source: Annotated[str, typer.Argument(help="A sound file, '-' for a wav on standard input; or a folder.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Output file, .vcz; '-' is standard output. Without it, NAME.vcz here.")
    ] = None,
    kbps: Annotated[float, typer.Option(help="Rate to aim at, 0.6 to 6 kbit/s, such as 0.6, 1.5, 3 or 6.")] = 1.5,
    device: DeviceOption = Device.auto,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
    out_dir: OutDirOption = None,
    glob: GlobOption = None,
    jobs: JobsOption = 0,
    resume: ResumeOption = False,
) -> None:
    """Compress the speech of SOURCE; of a folder, every recording, and exit with 1 if any failed."""
    check_kbps(kbps)
    from vcae.audio.io import SoundReader
    from vcae.codec.vcz import SUFFIX, duration_of

    if os.path.isdir(source):
        from vcae.batch.jobs import plan_folder
        from vcae.batch.workers import CompressSettings
        from vcae.cli.folder import Run, do_many

        run = Run(needed_folder(source, output, out_dir), glob, jobs, resume, force, quiet, json, verb="compressed")
        plan = plan_folder(Path(source), (), run.out_dir, glob, ending=SUFFIX)
        do_many(plan, CompressSettings(device=device.value, kbps=kbps), run)
        return
    refuse_folder_options(source, out_dir, glob, jobs, resume)
    target = output_path(output, [source], SUFFIX.removeprefix("."), ending="")
    check_target(target, force, (SUFFIX,))
    with SoundReader(source, sys.stdin.buffer) as sound, working("compressing", quiet):
        from vcae.codec.codec import Codec

        watch = Stopwatch()
        codec = Codec(device=device.value)
        data = codec.compress(sound, kbps)
    write_file(target, data, sys.stdout.buffer)
    seconds = duration_of(data)
    measured = 8e-3 * len(data) / seconds
    checkpoint = codec.file
    values = {
        "source": source,
        "output": target,
        "bytes": len(data),
        "duration_s": round(seconds, 3),
        "kbps": round(measured, 3),
        "kbps_asked": kbps,
        "device": str(codec.model.device),
        "checkpoint": checkpoint.path.stem,
        "sha256": checkpoint.sha256,
        "elapsed_s": round(watch(), 3),
    }
    sentence = (
        f"wrote {target}: {len(data)} bytes, {seconds:.2f} s, {measured:.2f} kbit/s ({kbps:g} asked for), {watch():.1f} s on "
        f"{codec.model.device} with checkpoint {checkpoint.path.stem}"
    )
    report(values, sentence, target, quiet, json)


@user_errors
def decompress(
    source: Annotated[str, typer.Argument(help="A .vcz file, '-' for standard input; or a folder.")],
    output: OutputOption = None,
    speaker: Annotated[
        list[str] | None,
        typer.Option(
            "--speaker",
            "-s",
            help="Another voice to say it: a clip, or a saved voice's name; repeat it for more clips, or mix voices with weights: a.wav:0.7.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a damaged file, and write nothing.")] = False,
    device: DeviceOption = Device.auto,
    seed: SeedOption = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
    out_dir: OutDirOption = None,
    glob: GlobOption = None,
    jobs: JobsOption = 0,
    resume: ResumeOption = False,
) -> None:
    """Make sound of a compressed SOURCE; of a folder, of every file, and exit with 1 if any failed. Damage is told and concealed."""
    from vcae.audio.io import check_output, write_blocks
    from vcae.codec.vcz import SUFFIX, CheckedStream, damage_lines, open_code

    names = tuple(speaker or ())
    speakers = [parse_speaker(text) for text in names]
    if os.path.isdir(source):
        from vcae.batch.jobs import plan_folder
        from vcae.batch.workers import DecompressSettings
        from vcae.cli.folder import Run, do_many

        run = Run(needed_folder(source, output, out_dir), glob, jobs, resume, force, quiet, json, verb="decompressed")
        settings = DecompressSettings(device=device.value, speakers=names, strict=strict, seed=seed)
        do_many(plan_folder(Path(source), names, run.out_dir, glob, (SUFFIX,)), settings, run)
        return
    refuse_folder_options(source, out_dir, glob, jobs, resume)
    target = output_path(output, [source, *(str(s.path) for s in speakers)], "decompressed")
    check_output(target, force)
    with open_code(source, sys.stdin.buffer) as opened:
        clips = read_clips(speakers)
        watch = Stopwatch()
        with working("decompressing", quiet):
            from vcae.codec.codec import Codec

            codec = Codec(device=device.value)
            voice = find_voice(codec.model, speakers, clips) if speakers else None
            shown = "standard input" if source == "-" else source
            stream = codec.stream(opened, voice, strict, shown, seed)
            comment = provenance(codec.file, "decompressed")
            sound = CheckedStream(stream, shown)
            write_blocks(target, sound, codec.sample_rate, comment, force, sys.stdout.buffer)
    lines = damage_lines(stream.damage)
    for line in lines:
        say(f"damaged: {shown}: {line}", sys.stderr)
    checkpoint, seconds, whole_s = codec.file, sound.n_samples / codec.sample_rate, stream.header.duration_s
    values = {
        "source": source,
        "speaker": list(names),
        "output": target,
        "duration_s": round(seconds, 3),
        "compressed_duration_s": round(whole_s, 3),
        "quality": stream.header.quality,
        "damage": [{"start_s": d.start_s, "stop_s": d.stop_s, "offset": d.offset, "reason": d.reason} for d in stream.damage],
        "device": str(codec.model.device),
        "checkpoint": checkpoint.path.stem,
        "sha256": checkpoint.sha256,
        "elapsed_s": round(watch(), 3),
    }
    length = f"{seconds:.2f} s" + ("" if seconds == whole_s else f" of {whole_s:.2f} s")
    whose = f"in the voice of {', '.join(names)}" if names else "in its own voice"
    sentence = (
        f"wrote {target}: {length} {whose}{', damaged' if lines else ''}, {watch():.1f} s on {codec.model.device} "
        f"with checkpoint {checkpoint.path.stem}"
    )
    report(values, sentence, target, quiet, json)
