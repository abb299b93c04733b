"""`vcae denoise`: the speech of a recording without its noise."""

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
    Stopwatch,
    output_path,
    report,
    user_errors,
    working,
)
from vcae.cli.folder import GlobOption, JobsOption, OutDirOption, ResumeOption, needed_folder, refuse_folder_options
from vcae.files import provenance
from vcae.options import check_strength

SourceArgument = Annotated[str, typer.Argument(help="A sound file, '-' for a wav on standard input; or a folder.")]


@user_errors
def denoise(
    source: SourceArgument,
    output: OutputOption = None,
    strength: Annotated[float, typer.Option(help="0: as it is, 1: all the noise away that can be.")] = 1.0,
    device: DeviceOption = Device.auto,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
    out_dir: OutDirOption = None,
    glob: GlobOption = None,
    jobs: JobsOption = 0,
    resume: ResumeOption = False,
) -> None:
    """Take the noise from the speech of SOURCE; of a folder, from every recording, and exit with 1 if any failed."""
    check_strength(strength)
    from vcae.audio.io import SoundReader, check_output, write_blocks
    from vcae.batch.workers import DenoiseSettings

    if os.path.isdir(source):
        from vcae.batch.jobs import plan_folder
        from vcae.cli.folder import Run, do_many

        run = Run(needed_folder(source, output, out_dir), glob, jobs, resume, force, quiet, json, verb="denoised")
        plan = plan_folder(Path(source), (), run.out_dir, glob)
        do_many(plan, DenoiseSettings(device=device.value, strength=strength), run)
        return
    refuse_folder_options(source, out_dir, glob, jobs, resume)
    target = output_path(output, [source], "denoised")
    check_output(target, force)
    with SoundReader(source, sys.stdin.buffer) as sound:
        watch = Stopwatch()
        with working("denoising", quiet):
            from vcae.engine.denoise import Cleaner

            cleaner = Cleaner(device=device.value)
            cleaned = cleaner.clean(sound, strength)
            comment = provenance(cleaner.file, "denoised")
            write_blocks(target, cleaned.blocks(), cleaner.sample_rate, comment, force, sys.stdout.buffer)
    values = {
        "source": source,
        "output": target,
        "duration_s": round(cleaned.duration_s, 3),
        "strength": strength,
        "device": str(cleaner.device),
        "checkpoint": cleaner.file.path.stem,
        "sha256": cleaner.file.sha256,
        "elapsed_s": round(watch(), 3),
    }
    sentence = f"wrote {target}: {cleaned.duration_s:.1f} s denoised in {watch():.1f} s on {cleaner.device} with checkpoint {cleaner.file.path.stem}"
    report(values, sentence, target, quiet, json)
