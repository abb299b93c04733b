"""`vcae anomaly`: fit a detector to normal recordings, score others, choose a threshold by cost, watch a stream."""

from __future__ import annotations

import csv
import glob
import io
import json as json_module
import os
import sys
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcae.batch.jobs import Outcome, find_recordings, name_targets
from vcae.batch.listeners import Scorer
from vcae.cli.collect import collect, plan_collected, read_each
from vcae.cli.common import ForceOption, JsonOption, QuietOption, Stopwatch, choices, progress, report, say, user_errors
from vcae.cli.help import App
from vcae.cli.run import work
from vcae.cli.sources import Run, SourcesArgument, takes_many
from vcae.errors import AudioError, CheckpointError, ConfigError, DataError
from vcae.files import STDIO, check_target, write_file

if TYPE_CHECKING:
    import numpy as np


app = App(
    help="Anomaly detection: learn from normal recordings only, then score how much others differ, and where.",
)
# Most places per recording that are printed; --json has them all.
MAX_NAMED = 8
# Columns of a table of scores.
COLUMNS = ("path", "score", "p_value", "anomalous", "threshold", "peak_s", "reason", "error")


class Model(str, Enum):
    """Models of a detector."""

    combined = "combined"
    frames = "frames"
    interpolation = "interpolation"
    denoising = "denoising"
    convolutional = "convolutional"
    latent = "latent"
    statistics = "statistics"
    modulation = "modulation"
    encoder = "encoder"
    exposure = "exposure"
    faults = "faults"


class Robust(str, Enum):
    """Methods against anomalies among the normal recordings."""

    none = "none"
    trimmed = "trimmed"
    rejection = "rejection"


ModelFileOption = Annotated[Path, typer.Option("--model", "-m", metavar="FILE", help="Detector (.safetensors) from `fit`.")]


def _read(path: str, sample_rate: int) -> np.ndarray:
    from vcae.audio.io import read_sound, resample

    sound = read_sound(path, sys.stdin.buffer)
    return resample(sound.wav, sound.sample_rate, sample_rate)


@app.command("fit")
@user_errors
def fit(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES",
            help="Normal recordings: folders, searched recursively, files, patterns, or a CSV with the column source.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Detector to write (.safetensors).")],
    model: Annotated[
        Model,
        typer.Option(
            metavar="MODEL",
            help=f"Model of the detector: {choices(Model).replace('|', ', ')}. "
            "combined is the best combination, weighted on normal data.",
        ),
    ] = Model.combined,
    robust: Annotated[
        Robust, typer.Option(metavar=choices(Robust), help="Against anomalies among the normal recordings.")
    ] = Robust.none,
    trim: Annotated[
        float, typer.Option(metavar="0..1", help="Fraction of the recordings (or frames) that --robust leaves out.")
    ] = 0.2,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML of detector settings; options on the command line take precedence."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Most training steps per network.")] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The same seed and recordings give the same detector.")] = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Fit a detector to the normal recordings of SOURCES. If interrupted, run the same command again to resume.

    Example: vcae anomaly fit normal/ -o fan.safetensors
    """
    check_target(output, force, (".safetensors",), CheckpointError)
    from vcae.anomaly.config import AnomalyConfig
    from vcae.config import load_config

    overrides = [f"model={model.value}", f"robust={robust.value}", f"trim={trim}", f"seed={seed}"]
    overrides += [] if steps is None else [f"max_steps={steps}"]
    if config is None:
        import dataclasses

        settings: dict[str, Any] = {"model": model.value, "robust": robust.value, "trim": trim, "seed": seed}
        settings |= {} if steps is None else {"max_steps": steps}
        chosen = dataclasses.replace(AnomalyConfig(), **settings)
    else:
        chosen = load_config(AnomalyConfig, config, overrides)
    for source in sources:
        if not glob.has_magic(source) and not os.path.lexists(source):
            raise AudioError(f"{source} does not exist; check the path")
    paths = find_recordings(sources)
    from vcae.anomaly.detector import Detector
    from vcae.anomaly.features import check_wav

    clock = Stopwatch()
    found, failures = read_each(
        paths, lambda path: check_wav(_read(path, chosen.mel.sample_rate), chosen, path), "reading", quiet
    )
    recordings = [wav for _, wav in found]
    state = output.with_name(f".{output.stem}.state.safetensors")
    with progress("fitting", quiet) as tell:
        detector = Detector.fit(
            recordings, chosen.mel.sample_rate, chosen, lambda done, total: tell(done / max(total, 1)), state
        )
    from vcae.version import __version__

    facts = {"vcae": __version__, "recordings": len(recordings), "failed": failures.n, **detector.info}
    detector.save(output, facts)
    state.unlink(missing_ok=True)
    sentence = (
        f"wrote {output}: {chosen.model} of {len(recordings)} recordings, {facts['seconds']:.0f} s of sound, in {clock():.1f} s"
    )
    sentence += f"; {facts['rejected']} parts of them rejected" if facts["rejected"] else ""
    report(
        {"output": str(output), "model": chosen.model, **facts, "wall_s": clock()},
        sentence + str(failures),
        str(output),
        quiet,
        json,
    )
    failures.leave()


@app.command("score")
@takes_many
def score(
    sources: SourcesArgument,
    run: Run,
    model: ModelFileOption,
    threshold: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Threshold on the score, instead of the detector's own.")
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Table to write.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for pictures: mel, reconstruction, errors, score over time.")
    ] = None,
    dcase: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for anomaly_score_*.csv and decision_result_*.csv.")
    ] = None,
    places: Annotated[bool, typer.Option("--places", help="Locate the anomalies in each recording.")] = False,
) -> None:
    """Score how much each of SOURCES differs from the normal recordings, and decide by the threshold.

    Example: vcae anomaly score new/ -m fan.safetensors --csv out.csv
    """
    if csv_file is not None:
        check_target(csv_file, run.force)
    jobs = plan_collected(Scorer, sources, run)
    names = [job.name for job in jobs]
    pictures = {} if plot is None else dict(zip(names, map(str, name_targets(plot, names, ".png")), strict=True))
    build = partial(Scorer, model, threshold, places, pictures)
    if run.out_dir is not None:
        work(build, sources, None, run)
        return

    rows = list[dict[str, Any]]()

    def take(outcome: Outcome) -> None:
        rows.append(_failed_row(outcome) if outcome.status == "failed" else outcome.value[0])
        if not run.quiet:
            sys.stdout.write((json_module.dumps(rows[-1]) if run.json else _line(rows[-1])) + "\n")

    found = collect(jobs, build, run, take, take)
    if csv_file is not None:
        _write_csv(csv_file, rows)
    scored = [row for row in rows if not row["error"]]
    if dcase is not None and scored:
        known = {job.source: job.name for job in jobs}
        _write_dcase(dcase, model, threshold, [known[row["path"]] for row in scored], scored)
    if not run.quiet and not run.json:
        failures = f"; {len(found.failed)} failed" if found.failed else ""
        reason = f"; threshold: {scored[0]['reason']}" if scored else ""
        say(f"{len(scored)} recordings scored{failures}{reason}", sys.stdout)
    found.leave()


def _failed_row(outcome: Outcome) -> dict[str, Any]:
    return {**dict.fromkeys(COLUMNS), "path": outcome.source, "error": outcome.reason}


def _line(row: dict[str, Any]) -> str:
    if row["error"]:
        return f"{'failed':9}  {row['path']}: {row['error']}"
    verdict = {True: "anomalous", False: "normal", None: "-"}[row["anomalous"]]
    said = f"{verdict:9}  score {row['score']:8.3f}  p {row['p_value']:.2g}  {row['path']}"
    spots = row.get("places", [])[:MAX_NAMED]
    return said + "".join(
        f"\n           {s['kind']} at {s['time_s']:.2f} s ({s['start_s']:.2f} to {s['end_s']:.2f})" for s in spots
    )


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:

    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    # An empty cell: there is no score, or no threshold.
    writer.writerows({**row, "anomalous": None if row["anomalous"] is None else int(row["anomalous"])} for row in rows)
    write_file(path, out.getvalue().encode())


def _write_dcase(folder: Path, model: Path, threshold: float | None, names: list[str], rows: list[dict[str, Any]]) -> None:
    """Write file,score and file,0 or 1 without a header, in the format of DCASE task 2, which asks for decisions in any case."""
    from vcae.anomaly.detector import Detector

    at, name = Detector.load(model).decide(threshold), model.stem
    if not at.chosen:
        say(f"warning: decisions in {folder} are by the threshold {at.value:.4g}: {at.reason}", sys.stderr)
    scores = "".join(f"{_quoted(n)},{row['score']:.6f}\n" for n, row in zip(names, rows, strict=True))
    decisions = "".join(f"{_quoted(n)},{int(row['score'] >= at.value)}\n" for n, row in zip(names, rows, strict=True))
    write_file(folder / f"anomaly_score_{name}.csv", scores.encode())
    write_file(folder / f"decision_result_{name}.csv", decisions.encode())


def _quoted(name: str) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([name])
    return out.getvalue()


@app.command("threshold")
@user_errors
def threshold(
    model: ModelFileOption,
    normal: Annotated[
        list[str],
        typer.Option("--normal", metavar="SOURCES", help="Folder or file of normal recordings not fitted to; may be repeated."),
    ],
    anomalous: Annotated[
        list[str], typer.Option("--anomalous", metavar="SOURCES", help="Folder or file of anomalous ones; may be repeated.")
    ],
    cost_miss: Annotated[float, typer.Option(metavar="COST", help="Cost of a missed anomaly.")] = 100.0,
    cost_false_alarm: Annotated[float, typer.Option(metavar="COST", help="Cost of a false alarm.")] = 1.0,
    prior: Annotated[float, typer.Option(metavar="0..1", help="Fraction of anomalies in use.")] = 0.01,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Choose the threshold of least expected cost on a dev set, and store it in the detector with an explanation.

    Example: vcae anomaly threshold -m fan.safetensors --normal dev/ok --anomalous dev/bad
    """
    from vcae.anomaly.metrics import CostTable

    costs = CostTable(cost_miss, cost_false_alarm, prior)
    import numpy as np

    from vcae.anomaly.detector import Detector
    from vcae.anomaly.threshold import choose_threshold

    detector = Detector.load(model)
    sides = [find_recordings(given) for given in (normal, anomalous)]
    both = set(sides[0]) & set(sides[1])
    if both:
        raise DataError(f"{min(both)} is given as normal and as anomalous; a recording can be one of them")
    rate, n_normal = detector.config.mel.sample_rate, len(sides[0])
    found, failures = read_each(
        [*sides[0], *sides[1]], lambda path: detector.score(_read(path, rate), rate).score, "scoring", quiet
    )
    scores = [np.array([score for n, score in found if (n < n_normal) == normal]) for normal in (True, False)]
    detector.decision = choose_threshold(scores[0], scores[1], costs)
    detector.save(model)
    values = {
        "model": str(model),
        "threshold": detector.threshold,
        "reason": detector.decision.reason,
        **detector.decision.facts,
    }
    sentence = f"threshold {detector.threshold:.4g} stored in {model}: {detector.decision.reason}{failures}"
    report({**values, "failed": failures.n}, sentence, str(model), quiet, json)
    failures.leave()


@app.command("watch")
@user_errors
def watch(
    recording: Annotated[
        str,
        typer.Argument(
            metavar="RECORDING", help="A sound file that may still grow, or '-' for raw 16-bit mono PCM on standard input."
        ),
    ],
    model: ModelFileOption,
    rate: Annotated[
        int | None, typer.Option(metavar="HZ", help="Sample rate in Hz of raw PCM; needed with '-' and .raw or .pcm files.")
    ] = None,
    window: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Window in s; by default as long as the fitted recordings.")
    ] = None,
    hop: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Hop between windows in s; by default half a window.")
    ] = None,
    follow: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Seconds to wait for more when the file ends.")] = 0.0,
    threshold: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Decide by this score instead of the detector's own threshold.")
    ] = None,
) -> None:
    """Score a stream window by window, one JSON line each, in constant memory.

    It follows one recording that may still grow; finished recordings are for `vcae anomaly score`.

    Example: vcae anomaly watch - --rate 16000 -m fan.safetensors
    """
    from vcae.audio.io import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE

    raw = recording == STDIO or Path(recording).suffix.lower() in (".raw", ".pcm")
    if raw and rate is None:
        raise ConfigError("raw PCM does not say its sample rate; give it with --rate, such as --rate 16000")
    if not raw and rate is not None:
        raise ConfigError(f"{recording} states its own sample rate; --rate is for raw PCM only")
    if rate is not None and not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(f"the sample rate is {rate} Hz; allowed are {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz")
    if not raw and not Path(recording).is_file():
        raise AudioError(f"{recording} is not a file; check the path")
    from contextlib import ExitStack

    from vcae.anomaly.detector import Detector
    from vcae.anomaly.watch import read_growing, read_pcm
    from vcae.anomaly.watch import watch as watch_stream

    detector = Detector.load(model)
    at = detector.decide(threshold)
    with ExitStack() as opened:
        if raw:
            assert rate is not None
            try:
                stream = sys.stdin.buffer if recording == STDIO else opened.enter_context(Path(recording).open("rb"))
            except OSError as error:
                raise AudioError(f"{recording} cannot be read: {error.strerror}") from error
            sample_rate, pieces = rate, read_pcm(stream, follow)
        else:
            sample_rate, pieces = read_growing(Path(recording), follow)
        for n, found in enumerate(watch_stream(detector, pieces, sample_rate, window, hop)):
            row: dict[str, Any] = {k: None if v is None else round(v, 6) for k, v in vars(found).items()}
            row["anomalous"] = at.verdict(found.score)
            row["threshold"] = at.value if at.chosen else None
            if n == 0:
                row["reason"] = at.reason
            if found.score is None:
                row["note"] = "silent"
            sys.stdout.write(json_module.dumps(row) + "\n")
            sys.stdout.flush()
