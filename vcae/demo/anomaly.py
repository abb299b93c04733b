"""The tab Anomaly: learn from normal recordings only, then score others."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from safetensors import SafetensorError, safe_open

from vcae import AnomalyConfig, CheckpointError, ConfigError, DataError, Detector, resample
from vcae.anomaly.locate import locate
from vcae.anomaly.plot import draw_anomaly
from vcae.demo.anomaly_rows import ALARM_STEP, MAX_ALARMS, Judged, Row, judged_html, unique_names, write_example
from vcae.demo.limits import MAX_FILES, read_uploads
from vcae.demo.pictures import figure_html, note_html
from vcae.demo.studio import Studio, session_of, shows_errors

# Most pictures per run; the table lists all recordings.
MAX_PICTURES = 6
MAX_PLACES = 3
# Fills in the paths in the folder that was chosen, which only the browser knows; they are the second input.
CHOSEN = "(...given) => { given[1] = window.vcaePaths('anomaly-others', given[0]); return given; }"
# Largest sizes of the networks in an uploaded detector.
MOST = {"width": 1024, "code": 256, "n_blocks": 16, "folds": 20, "context": 63}
MOST_MEL = {"n_fft": 8192, "n_mels": 512, "sample_rate": 192000}


@dataclass(frozen=True)
class _Parts:
    """Components of the tab."""

    fitted: gr.State
    normal: gr.File
    fit: gr.Button
    others: gr.File
    paths: gr.Textbox
    score: gr.Button
    file: gr.File
    example: gr.Button
    stop: gr.Button
    download: gr.DownloadButton
    status: gr.HTML
    judged: gr.State
    found: gr.Column
    alarms: gr.Slider
    results: gr.HTML


def _layout(studio: Studio) -> _Parts:
    limits = studio.limits
    gr.Markdown(
        "Learn from normal recordings only: machines, rooms, voices. Then see how much others differ from them, and where.",
        elem_classes="vcae-lead",
    )
    fitted = gr.State("", time_to_live=60 * limits.minutes * 4, delete_callback=studio.forget)
    with gr.Row():
        with gr.Column():
            normal = gr.File(
                file_count="multiple", label=f"1. Normal recordings, up to {MAX_FILES}", height=170, elem_id="anomaly-normal"
            )
            gr.Button("Choose a folder", size="sm", elem_id="anomaly-normal-folder")
            fit = gr.Button("Learn what is normal", variant="primary", elem_id="anomaly-fit")
        with gr.Column():
            others = gr.File(
                file_count="multiple", label=f"2. Recordings to judge, up to {MAX_FILES}", height=170, elem_id="anomaly-others"
            )
            gr.Button("Choose a folder", size="sm", elem_id="anomaly-others-folder")
            paths = gr.Textbox("", visible="hidden", label="Paths in the chosen folder")
            score = gr.Button("Judge them", variant="primary", elem_id="anomaly-score")
    with gr.Accordion("Use a detector that was fitted before", open=False):
        file = gr.File(label="Detector (.safetensors), from here or from the command line", height=170, elem_id="anomaly-file")
    with gr.Row(elem_classes="vcae-actions"):
        example = gr.Button("Try an example", elem_id="anomaly-example", scale=1)
        stop = gr.Button("Stop", elem_id="anomaly-stop", elem_classes="vcae-stop", scale=0, min_width=140)
        download = gr.DownloadButton("Download the detector", visible=False, elem_id="anomaly-download", scale=1)
    status = gr.HTML(
        note_html("Recordings of one kind: a machine, a room, a voice."),
        padding=False,
        elem_id="anomaly-status",
        elem_classes="vcae-status",
    )
    judged = gr.State(None, time_to_live=60 * limits.minutes * 4)
    with gr.Column(visible=False, elem_id="anomaly-found") as found:
        alarms = gr.Slider(
            0,
            MAX_ALARMS,
            0,
            step=ALARM_STEP,
            label="Of 100 normal recordings, this many may raise an alarm",
            info="More alarms miss fewer anomalies. At 0 the detector's own threshold counts, and without one there is no verdict.",
            elem_id="anomaly-alarms",
        )
        results = gr.HTML(padding=False, elem_id="anomaly-results")
    return _Parts(
        fitted,
        normal,
        fit,
        others,
        paths,
        score,
        file,
        example,
        stop,
        download,
        status,
        judged,
        found,
        alarms,
        results,
    )


def build(studio: Studio) -> None:
    """Add the tab's contents and its events."""
    parts = _layout(studio)

    @shows_errors(studio, parts.status)
    def fit_work(normal: list[str] | None, request: gr.Request, progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008
        with studio.job(session_of(request)) as check:
            config = AnomalyConfig()
            progress(0.02, desc="reading")
            wavs = [wav for _, wav in _read(studio, normal or [], "the normal recordings", config.mel.sample_rate)]

            def step(done: int, total: int) -> None:
                check()
                progress(0.05 + 0.9 * done / max(total, 1), desc="learning")

            detector = Detector.fit(wavs, config.mel.sample_rate, config, step)
            path = studio.new_file("detector.safetensors")
            detector.save(path)
        said = f"Learned from {len(wavs)} recordings, {detector.info['seconds']:.0f} s. Now give it recordings to judge."
        return [note_html(said, "done"), gr.update(value=str(path), visible=True), str(path), None]

    @shows_errors(studio, parts.status)
    def score_work(
        others: list[str] | None,
        paths: str,
        file: str | None,
        fitted: str,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        with studio.job(session_of(request)) as check:
            detector = _detector(studio, file, fitted)
            sounds = _read(studio, others or [], "the recordings to judge", detector.config.mel.sample_rate, paths)
            made, said = _score_all(studio, detector, sounds, others or [], check, progress)
        return [note_html(said, "done"), gr.update(visible=True), 0, judged_html(made, 0), made]

    def choose(made: Judged | None, alarms: float) -> str:
        return "" if made is None else judged_html(made, alarms)

    def example_files() -> list[list[str]]:
        folder = studio.new_file("example").parent
        return [[str(path) for path in paths] for paths in write_example(folder)]

    def stop_work(request: gr.Request) -> str:
        studio.stop(session_of(request))
        return note_html("Stopped.")

    options: dict[str, Any] = {
        "show_progress_on": parts.status,
        "concurrency_id": "work",
        "concurrency_limit": studio.limits.jobs,
        "api_visibility": "private",
    }
    fitting = parts.fit.click(fit_work, parts.normal, [parts.status, parts.download, parts.fitted, parts.file], **options)
    scoring = parts.score.click(
        score_work,
        [parts.others, parts.paths, parts.file, parts.fitted],
        [parts.status, parts.found, parts.alarms, parts.results, parts.judged],
        js=CHOSEN,
        **options,
    )
    quick: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    parts.alarms.change(choose, [parts.judged, parts.alarms], parts.results, **quick)
    filled = parts.example.click(example_files, None, [parts.normal, parts.others], **quick)
    learned = filled.then(fit_work, parts.normal, [parts.status, parts.download, parts.fitted, parts.file], **options)
    judging = learned.then(
        score_work,
        [parts.others, parts.paths, parts.file, parts.fitted],
        [parts.status, parts.found, parts.alarms, parts.results, parts.judged],
        js=CHOSEN,
        **options,
    )
    parts.stop.click(
        stop_work,
        None,
        parts.status,
        cancels=[fitting, scoring, learned, judging],
        queue=False,
        api_visibility="private",
        show_progress="hidden",
    )


def _score_all(
    studio: Studio,
    detector: Detector,
    sounds: Sequence[tuple[str, Any]],
    sources: Sequence[str],
    check: Callable[[], None],
    progress: Any,
) -> tuple[Judged, str]:
    """Return the scores of recordings, and a sentence about them."""
    rows: list[Row] = []
    for n, (name, wav) in enumerate(sounds):
        check()
        progress(n / len(sounds), desc=f"judging {n + 1} of {len(sounds)}")
        rows.append(_judge(studio, detector, name, wav, sources[n], n < MAX_PICTURES))
    own = detector.decide()
    steps = np.arange(ALARM_STEP, MAX_ALARMS + ALARM_STEP / 2, ALARM_STEP)
    thresholds = {float(step): detector.score_at(float(step) / 100) for step in steps}
    said = f"Scored {len(rows)}."
    if own.chosen:
        said += f" The detector's own threshold is {own.value:.3g}."
    else:
        said += " This detector has no threshold of its own; choose how many alarms you accept."
    if len(rows) > MAX_PICTURES:
        said += f" The first {MAX_PICTURES} are drawn."
    return Judged(tuple(sorted(rows, key=lambda row: -row.score)), own.value if own.chosen else None, thresholds), said


def _read(studio: Studio, paths: Sequence[str], what: str, sample_rate: int, chosen: str = "") -> list[tuple[str, Any]]:
    """Return name and samples of each recording, at the detector's rate; `chosen` as in `unique_names`."""
    if not paths:
        raise DataError(f"{what} are missing; upload some")
    limits = studio.limits
    sounds = read_uploads(paths, what, MAX_FILES, limits.seconds, limits.total_seconds)
    wavs = [resample(sound.wav, sound.sample_rate, sample_rate) for sound in sounds]
    return list(zip(unique_names(paths, chosen), wavs, strict=True))


def _detector(studio: Studio, file: str | None, fitted: str) -> Detector:
    """Return the uploaded detector, or the one that was fitted here."""
    if file is not None:
        check_size(Path(file))
        return Detector.load(file)
    if not fitted:
        raise ConfigError("there is no detector yet; learn from normal recordings first, or upload one")
    return Detector.load(studio.kept(fitted, "the detector"))


def check_size(path: Path) -> None:
    """Check the size of an uploaded detector before memory is allocated for it.

    Raises:
        CheckpointError: If it is too large, or not a detector.
    """
    try:
        with safe_open(path, "pt") as opened:
            config = json.loads(opened.metadata()["vcae_anomaly"])["config"]
        numbers = [(config, MOST), (config["mel"], MOST_MEL)]
        over = [key for values, most in numbers for key, limit in most.items() if not 0 < int(values.get(key, 1)) <= limit]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path.name} is not an anomaly detector; make one here or with vcae anomaly fit") from error
    if over:
        raise CheckpointError(
            f"{path.name} is larger than a detector may be here ({', '.join(over)}); use it on the command line"
        )


def _judge(studio: Studio, detector: Detector, name: str, wav: Any, source: str, draw: bool) -> Row:
    """Return the score of a recording, with its picture if `draw` is set."""
    found = detector.score(wav, detector.config.mel.sample_rate)
    spots = locate(wav, detector.config.mel.sample_rate, found.frame_scores, found.hop_s, limits=detector.limits)
    where = ", ".join(f"{spot.kind} at {spot.time_s:.1f} s" for spot in spots[:MAX_PLACES]) or "-"
    picture = ""
    if draw:
        path = studio.new_file("picture.png")
        draw_anomaly(path, found, detector.config.mel, name, [(spot.start_s, spot.end_s) for spot in spots])
        picture = figure_html(path.read_bytes(), f"Mel, reconstruction, error and score over time of {name}", card=True)
        studio.forget(path)
    return Row(name, found.score, found.p_value, where, source, picture)
