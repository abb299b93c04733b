"""The tab Anomaly: learn from normal recordings only, then score others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from safetensors import SafetensorError, safe_open

from vcae import AnomalyConfig, CheckpointError, ConfigError, DataError, Detector, resample
from vcae.anomaly.detector import Threshold
from vcae.anomaly.locate import locate
from vcae.anomaly.plot import draw_anomaly
from vcae.demo.limits import MAX_FILES, read_uploads
from vcae.demo.pictures import figure_html, note_html, table_html
from vcae.demo.studio import Studio, session_of, shows_errors

# Most pictures per run; the table lists all recordings.
MAX_PICTURES = 6
MAX_PLACES = 3
# Largest sizes of the networks in an uploaded detector.
MOST = {"width": 1024, "code": 256, "n_blocks": 16, "folds": 20, "context": 63}
MOST_MEL = {"n_fft": 8192, "n_mels": 512, "sample_rate": 192000}
HEAD = ("Recording", "Verdict", "Score", "Normal ones as high (p)", "Stands out")


def build(studio: Studio) -> None:
    """Add the tab's contents and its events."""
    limits = studio.limits
    gr.Markdown(
        "Learn from normal recordings only - machines, rooms, voices - then see how much others differ from them, and where.",
        elem_classes="vcae-lead",
    )
    fitted = gr.State("", time_to_live=60 * limits.minutes * 4, delete_callback=studio.forget)
    with gr.Row():
        with gr.Column():
            normal = gr.File(
                file_count="multiple", label=f"1. Normal recordings, up to {MAX_FILES}", height=170, elem_id="anomaly-normal"
            )
            fit = gr.Button("Learn what is normal", variant="primary", elem_id="anomaly-fit")
        with gr.Column():
            others = gr.File(
                file_count="multiple", label=f"2. Recordings to judge, up to {MAX_FILES}", height=170, elem_id="anomaly-others"
            )
            score = gr.Button("Judge them", variant="primary", elem_id="anomaly-score")
    with gr.Accordion("Use a detector that was fitted before", open=False):
        file = gr.File(
            label="Detector (.safetensors), from here or from `vcae anomaly fit`", height=170, elem_id="anomaly-file"
        )
    with gr.Row(elem_classes="vcae-actions"):
        stop = gr.Button("Stop", elem_id="anomaly-stop", elem_classes="vcae-stop", scale=0, min_width=140)
        download = gr.DownloadButton("Download the detector", visible=False, elem_id="anomaly-download", scale=1)
    status = gr.HTML(
        note_html(f"Recordings of one kind, {limits.total_seconds:g} s together at most."),
        padding=False,
        elem_id="anomaly-status",
        elem_classes="vcae-status",
    )
    results = gr.HTML(padding=False, elem_id="anomaly-results")

    @shows_errors(studio, status)
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

    @shows_errors(studio, status)
    def score_work(
        others: list[str] | None,
        file: str | None,
        fitted: str,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> list[Any]:
        with studio.job(session_of(request)) as check:
            detector = _detector(studio, file, fitted)
            sounds = _read(studio, others or [], "the recordings to judge", detector.config.mel.sample_rate)
            at = detector.decide()
            rows: list[tuple[str, ...]] = []
            pictures: list[str] = []
            for n, (name, wav) in enumerate(sounds):
                check()
                progress(n / len(sounds), desc=f"judging {n + 1} of {len(sounds)}")
                row, picture = _judge(studio, detector, name, wav, at, len(pictures) < MAX_PICTURES)
                rows.append(row)
                pictures += picture
        if at.chosen:
            said = (
                f"Judged {len(rows)}: {sum(row[1] == 'anomalous' for row in rows)} anomalous, by a threshold of {at.value:.3g}."
            )
        else:
            said = f"Scored {len(rows)}. This detector has no threshold, so there are no verdicts; vcae anomaly threshold chooses one."
        if len(pictures) < len(rows):
            said += f" The first {len(pictures)} are drawn."
        return [note_html(said, "done"), table_html(HEAD, rows) + "".join(pictures)]

    def stop_work(request: gr.Request) -> str:
        studio.stop(session_of(request))
        return note_html("Stopped.")

    options: dict[str, Any] = {
        "show_progress_on": status,
        "concurrency_id": "work",
        "concurrency_limit": limits.jobs,
        "api_visibility": "private",
    }
    fitting = fit.click(fit_work, normal, [status, download, fitted, file], **options)
    scoring = score.click(score_work, [others, file, fitted], [status, results], **options)
    stop.click(
        stop_work, None, status, cancels=[fitting, scoring], queue=False, api_visibility="private", show_progress="hidden"
    )


def _read(studio: Studio, paths: Sequence[str], what: str, sample_rate: int) -> list[tuple[str, Any]]:
    """Return name and samples of each recording, at the detector's rate."""
    if not paths:
        raise DataError(f"{what} are missing; upload some")
    limits = studio.limits
    sounds = read_uploads(paths, what, MAX_FILES, limits.seconds, limits.total_seconds)
    return [(Path(path).name, resample(s.wav, s.sample_rate, sample_rate)) for path, s in zip(paths, sounds, strict=True)]


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


def _percent(share: float) -> str:
    return "under 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _judge(
    studio: Studio, detector: Detector, name: str, wav: Any, threshold: Threshold, draw: bool
) -> tuple[tuple[str, ...], list[str]]:
    """Return a recording's row of the table, and its picture if `draw` is set."""
    found = detector.score(wav, detector.config.mel.sample_rate)
    spots = locate(wav, detector.config.mel.sample_rate, found.frame_scores, found.hop_s, limits=detector.limits)
    where = ", ".join(f"{spot.kind} at {spot.time_s:.1f} s" for spot in spots[:MAX_PLACES]) or "-"
    verdict = {True: "anomalous", False: "normal", None: "no threshold"}[threshold.verdict(found.score)]
    row = (name, verdict, f"{found.score:.2f}", _percent(found.p_value), where)
    if not draw:
        return row, []
    path = studio.new_file("picture.png")
    draw_anomaly(path, found, detector.config.mel, name, [(spot.start_s, spot.end_s) for spot in spots])
    picture = figure_html(path.read_bytes(), f"Mel, reconstruction, error and score over time of {name}: {verdict}", card=True)
    studio.forget(path)
    return row, [picture]
