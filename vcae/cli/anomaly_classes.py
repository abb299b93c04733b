"""`vcae anomaly fit-classes`, `classify` and `evaluate`: known classes with an open end, and figures on labelled recordings."""

from __future__ import annotations

import csv
import io
import json as json_module
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcae.cli.common import EXIT_USER_ERROR, ForceOption, JsonOption, QuietOption, report, user_errors
from vcae.cli.units import find_recordings
from vcae.errors import AudioError, CheckpointError, ConfigError, DataError, VcaeError
from vcae.files import check_target, write_file

if TYPE_CHECKING:
    import numpy as np

    from vcae.anomaly.detector import Detector
    from vcae.anomaly.metrics import CostTable
    from vcae.anomaly.openset import Classified, OpenSetClassifier

ModelOption = Annotated[Path, typer.Option("--model", "-m", help="Model file (.safetensors).")]


class By(str, Enum):
    """Which score decides what is unknown."""

    softmax = "softmax"
    energy = "energy"
    distance = "distance"


def register(app: typer.Typer) -> None:
    """Add the commands of this file to `vcae anomaly`."""
    app.command("fit-classes")(fit_classes)
    app.command("classify")(classify)
    app.command("evaluate")(evaluate)


@contextmanager
def _bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show progress and the time left on a terminal's stderr; yields what takes done and total."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet or not sys.stderr.isatty()) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Readings:
    """Reads recordings one after the other; what cannot be read is named on stderr, skipped and counted."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate, self.skipped = sample_rate, 0

    def read(self, path: str) -> np.ndarray | None:
        """Return a recording (N,) at the sample rate, or None."""
        from vcae.anomaly.openset import check_wav
        from vcae.audio.io import read_sound, resample

        try:
            sound = read_sound(path)
            check_wav(sound.wav, sound.sample_rate, sound.name)
        except AudioError as error:
            self.skip(error)
            return None
        return resample(sound.wav, sound.sample_rate, self.sample_rate)

    def skip(self, error: VcaeError) -> None:
        """Name and count a recording that could not be used."""
        self.skipped += 1
        sys.stderr.write("skipped: " + " ".join(str(error).split()) + "\n")

    def close(self, n_given: int) -> None:
        """Raise AudioError if nothing could be read."""
        if self.skipped == n_given:
            raise AudioError(f"none of the {n_given} recordings could be used; the lines above say why")


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give a folder that holds a folder of recordings for each class")
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise DataError(f"{folder} holds no folders; each class needs one, named after it, with its recordings")
    return found


@user_errors
def fit_classes(
    folder: Annotated[Path, typer.Argument(help="A folder with one folder of recordings a class, named after the class.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write (.safetensors).")],
    by: Annotated[By | None, typer.Option(help="Score that decides what is unknown; both others are set up too.")] = None,
    keep: Annotated[float, typer.Option(help="Share of held-out recordings of known classes that the thresholds keep.")] = 0.95,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and recordings give the same model.")] = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Learn the classes of FOLDER, and when a sound is none of them."""
    from vcae.anomaly.config import OpenSetConfig

    check_target(output, force, (".safetensors",), CheckpointError)
    settings = {"keep": keep, "max_steps": steps, "seed": seed} | ({} if by is None else {"by": by.value})
    config = OpenSetConfig(**settings)  # type: ignore[arg-type]
    listed: list[tuple[str, str]] = []
    for inside in _class_folders(folder):
        try:
            listed += [(path, inside.name) for path, _ in find_recordings([str(inside)])]
        except AudioError as error:
            sys.stderr.write(f"skipped: class {inside.name}: {error}\n")
    if not listed:
        raise DataError(f"no folder in {folder} holds sound files; give recordings of each class")
    readings = _Readings(config.mel.sample_rate)
    read = [(readings.read(path), label) for path, label in listed]
    readings.close(len(listed))
    kept = [(wav, label) for wav, label in read if wav is not None]
    from vcae.anomaly.openset import OpenSetClassifier

    with _bar("fitting", quiet) as progress:
        model = OpenSetClassifier.fit([wav for wav, _ in kept], [label for _, label in kept], config, progress)
    for name in model.facts["single"]:
        sys.stderr.write(
            f"warning: class {name} has a single file; it is learned, but none of it was held back to set the threshold by: add more\n"
        )
    model.save(output)
    facts = model.facts
    sizes = ", ".join(f"{name} {n}" for name, n in sorted(facts["recordings"].items()))
    sentence = (
        f"wrote {output}: {len(model.classes)} classes ({sizes}), {facts['held_out']} of {len(kept)} recordings held out, "
        f"{facts['held_out_accuracy']:.0%} of those right; {readings.skipped} skipped"
    )
    values = {"model": str(output), "classes": list(model.classes), "thresholds": model.thresholds, **facts}
    report({**values, "skipped": readings.skipped}, sentence, str(output), quiet, json)


@user_errors
def classify(
    sources: Annotated[list[str], typer.Argument(help="Sound files, or folders of them.")],
    model: ModelOption,
    by: Annotated[By | None, typer.Option(help="Score that decides what is unknown; the model's choice without it.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Of that score; the model's own without it.")] = None,
    output: Annotated[Path | None, typer.Option("--csv", help="Write the answers to a CSV file.")] = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Say which class each of SOURCES is, how surely, or that it is unknown."""
    if output is not None:
        check_target(output, force)
    recordings = find_recordings(sources)
    from vcae.anomaly.openset import OpenSetClassifier

    classifier = OpenSetClassifier.load(model)
    readings = _Readings(classifier.config.mel.sample_rate)
    rows: list[dict[str, Any]] = []
    for path, shown, found in _classify_all(classifier, recordings, readings, by, threshold):
        row = {"file": path, "class": found.label or "unknown", "best": found.best, "confidence": round(found.confidence, 4)}
        row |= {name: round(value, 5) for name, value in found.scores.items()} | {"by": found.by, "threshold": found.threshold}
        rows.append(row)
        if not quiet:
            likely = "" if found.label else f", nearest {found.best}"
            side = "<=" if found.label else ">"
            line = (
                f"{shown}: {row['class']}{likely}, confidence {found.confidence:.2f} "
                f"({found.by} {found.scores[found.by]:.3g} {side} {found.threshold:.3g})"
            )
            sys.stdout.write((json_module.dumps(row) if json else line) + "\n")
    readings.close(len(recordings))
    if output is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_file(output, text.getvalue())
    if readings.skipped:
        sys.stderr.write(f"error: {readings.skipped} of {len(recordings)} recordings could not be used; the others were\n")
        raise typer.Exit(EXIT_USER_ERROR)


def _classify_all(
    classifier: OpenSetClassifier,
    recordings: Sequence[tuple[str, str]],
    readings: _Readings,
    by: By | None = None,
    threshold: float | None = None,
) -> Iterator[tuple[str, str, Classified]]:
    """Yield path, name and answer of each recording that can be used."""
    for path, shown in recordings:
        wav = readings.read(path)
        if wav is not None:
            yield path, shown, classifier.classify(wav, by.value if by else None, threshold)


@user_errors
def evaluate(
    model: ModelOption,
    normal: Annotated[list[str] | None, typer.Option(help="Normal recordings: files or folders. Repeat it for more.")] = None,
    anomalous: Annotated[list[str] | None, typer.Option(help="Anomalous recordings, likewise.")] = None,
    known: Annotated[
        Path | None, typer.Option(help="For classes: a folder a class, of recordings that were not fitted.")
    ] = None,
    unknown: Annotated[list[str] | None, typer.Option(help="For classes: recordings of none of them.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report.")] = Path("anomalies"),
    threshold: Annotated[float | None, typer.Option(help="Of the score; the model's own without it.")] = None,
    cost_miss: Annotated[float, typer.Option(help="Cost of an anomaly called normal.")] = 100.0,
    cost_false_alarm: Annotated[float, typer.Option(help="Cost of a normal recording called anomalous.")] = 1.0,
    prior: Annotated[float, typer.Option(help="Share of anomalies where the detector works.")] = 0.01,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Draw the worst mistakes.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Measure a model on labelled recordings it was not fitted to; write a page with curves, players and pictures.

    A detector takes --normal and --anomalous; a model of classes takes --known and --unknown.
    """
    from vcae.anomaly.metrics import CostTable
    from vcae.checkpoint import find, read_header

    costs = CostTable(cost_miss, cost_false_alarm, prior)
    classes = "vcae" in read_header(find(model))
    if classes:
        if known is None or not unknown or normal or anomalous:
            raise ConfigError(f"{model} knows classes; evaluate it with --known FOLDER_PER_CLASS and --unknown FOLDER")
        return _evaluate_classes(model, known, unknown, output, seed, quiet, json)
    if not normal or not anomalous or known is not None or unknown:
        raise ConfigError(f"{model} is a detector; evaluate it with --normal FOLDER and --anomalous FOLDER")
    return _evaluate_detector(model, normal, anomalous, output, threshold, costs, pictures, seed, quiet, json)


def _evaluate_detector(
    path: Path,
    normal: list[str],
    anomalous: list[str],
    output: Path,
    threshold: float | None,
    costs: CostTable,
    pictures: bool,
    seed: int,
    quiet: bool,
    json: bool,
) -> None:
    from vcae.anomaly.detector import Detector
    from vcae.anomaly.metrics import f1_threshold, gamma_threshold
    from vcae.anomaly.report import Scored, judge, write_report
    from vcae.figures.plot import need_matplotlib

    need_matplotlib()
    detector = Detector.load(path)
    given = [(p, False) for p, _ in find_recordings(normal)] + [(p, True) for p, _ in find_recordings(anomalous)]
    readings = _Readings(detector.config.mel.sample_rate)
    scored: list[Scored] = []
    with _bar("scoring", quiet) as progress:
        for n, (file, label) in enumerate(given):
            wav = readings.read(file)
            if wav is not None:
                try:
                    found = detector.score(wav, detector.config.mel.sample_rate)
                    scored.append(Scored(Path(file), label, found.score, found.probability))
                except AudioError as error:
                    readings.skip(AudioError(f"{file}: {error}"))
            progress(n + 1, len(given))
    readings.close(len(given))
    usual = gamma_threshold([s.score for s in scored if not s.anomalous]) if sum(not s.anomalous for s in scored) > 2 else None
    chosen = detector.decide(threshold)
    others = {"best F1 on these recordings": f1_threshold([s.anomalous for s in scored], [s.score for s in scored])}
    others |= {} if usual is None else {"90th percentile of a gamma of these normal scores": usual}
    judged = judge(scored, chosen.value, chosen.reason, costs, others, seed=seed)
    facts = {"model": path.name, "sha256": str(detector.info.get("sha256", ""))[:16], "recordings": len(scored)}
    facts |= {"skipped": readings.skipped, "bootstrap seed": seed}

    def draw(source: Path, picture: Path) -> None:
        wav = readings.read(str(source))
        if wav is not None:
            _draw(detector, wav, picture, source.name)

    page = write_report(judged, output, facts, draw if pictures else None)
    figures = {name: vars(found) for name, found in judged.figures.items()}
    sentence = f"wrote {page}: " + ", ".join(f"{name} {found}" for name, found in judged.figures.items())
    sentence += f"; {readings.skipped} of {len(given)} recordings skipped" if readings.skipped else ""
    report(
        {"page": str(page), **facts, "threshold": chosen.value, "reason": chosen.reason, **figures},
        sentence,
        str(page),
        quiet,
        json,
    )


def _draw(detector: Detector, wav: np.ndarray, picture: Path, title: str) -> None:
    from vcae.anomaly.plot import draw_anomaly

    draw_anomaly(picture, detector.score(wav, detector.config.mel.sample_rate), detector.config.mel, title)


def _evaluate_classes(path: Path, known: Path, unknown: list[str], output: Path, seed: int, quiet: bool, json: bool) -> None:
    from vcae.anomaly.openset import OpenSetClassifier, judge_open_set
    from vcae.anomaly.openset_report import write_open_set
    from vcae.figures.plot import need_matplotlib

    need_matplotlib()
    classifier = OpenSetClassifier.load(path)
    folders = _class_folders(known)
    strange = [f.name for f in folders if f.name not in classifier.classes]
    if strange:
        raise DataError(
            f"{known} holds {', '.join(strange)}, which {path} does not know; it knows {', '.join(classifier.classes)}: "
            "give these to --unknown"
        )
    given = [(found, folder.name) for folder in folders for found in find_recordings([str(folder)])]
    rest: list[tuple[tuple[str, str], str | None]] = [*given, *((found, None) for found in find_recordings(unknown))]
    readings = _Readings(classifier.config.mel.sample_rate)
    truth, answers, files = [], [], []
    with _bar("classifying", quiet) as progress:
        for n, (recording, label) in enumerate(rest):
            for file, _, answer in _classify_all(classifier, [recording], readings):
                truth.append(label)
                answers.append(answer)
                files.append(file)
            progress(n + 1, len(rest))
    readings.close(len(rest))
    judged = judge_open_set(truth, answers, classifier.thresholds, seed=seed)
    facts = {"model": path.name, "known": sum(t is not None for t in truth), "unknown": sum(t is None for t in truth)}
    facts |= {"skipped": readings.skipped, "bootstrap seed": seed}
    page = write_open_set(output, judged, files, truth, answers, classifier.thresholds, facts)
    by = classifier.config.by
    sentence = (
        f"wrote {page}: {judged['closed_accuracy']:.3f} of the known rightly classified; by {by}: AUROC {judged[by]['auroc']}, "
        f"{judged[by]['accepted']:.3f} accepted and right, {judged[by]['rejected']:.3f} of the unknown rejected"
    )
    plain = {k: {n: vars(v) if n == "auroc" else v for n, v in d.items()} for k, d in judged.items() if isinstance(d, dict)}
    report(
        {"page": str(page), **facts, "closed_accuracy": judged["closed_accuracy"], **plain}, sentence, str(page), quiet, json
    )
