"""`vcae anomaly fit-classes`, `classify` and `evaluate`: open-set classification, and evaluation on labelled recordings."""

from __future__ import annotations

import csv
import io
import json as json_module
import sys
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcae.batch.jobs import Outcome, find_recordings
from vcae.batch.listeners import Classifier
from vcae.cli.collect import collect, plan_collected, read_each
from vcae.cli.common import ForceOption, JsonOption, QuietOption, choices, progress, report, say, user_errors
from vcae.cli.run import work
from vcae.cli.sources import Run, SourcesArgument, takes_many
from vcae.errors import CheckpointError, ConfigError, DataError
from vcae.files import check_target, write_file

if TYPE_CHECKING:
    import numpy as np

    from vcae.anomaly.detector import Detector
    from vcae.anomaly.metrics import CostTable

ModelOption = Annotated[Path, typer.Option("--model", "-m", metavar="FILE", help="Model file (.safetensors).")]


class By(str, Enum):
    """Scores that can decide whether a sound is unknown."""

    softmax = "softmax"
    energy = "energy"
    distance = "distance"


def register(app: typer.Typer) -> None:
    """Add the commands of this file to `vcae anomaly`."""
    app.command("fit-classes")(fit_classes)
    app.command("classify")(classify)
    app.command("evaluate")(evaluate)


def _read(path: str, sample_rate: int) -> np.ndarray:
    """Read a recording (N,), resample it, and check that it can be classified."""
    from vcae.anomaly.openset import check_wav
    from vcae.audio.io import read_sound, resample

    sound = read_sound(path)
    check_wav(sound.wav, sound.sample_rate, sound.name)
    return resample(sound.wav, sound.sample_rate, sample_rate)


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder with a folder of recordings for each class")
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise DataError(f"{folder} has no folders; each class needs one, named after it, with its recordings")
    return found


@user_errors
def fit_classes(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder with one folder of recordings per class, named after the class.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Model file to write (.safetensors).")],
    by: Annotated[
        By | None,
        typer.Option(
            metavar=choices(By), help="Score that decides whether a sound is unknown; thresholds of the others are set too."
        ),
    ] = None,
    keep: Annotated[
        float, typer.Option(metavar="0..1", help="Fraction of held-out recordings of known classes that the thresholds accept.")
    ] = 0.95,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Training steps.")] = 300,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The same seed and recordings give the same model.")] = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Train a classifier on the classes of FOLDER, which also recognises unknown sounds.

    Example: vcae anomaly fit-classes machines/ -o machines.safetensors
    """
    from vcae.anomaly.config import OpenSetConfig

    check_target(output, force, (".safetensors",), CheckpointError)
    settings = {"keep": keep, "max_steps": steps, "seed": seed} | ({} if by is None else {"by": by.value})
    config = OpenSetConfig(**settings)  # type: ignore[arg-type]
    listed: list[tuple[str, str]] = []
    for inside in _class_folders(folder):
        try:
            listed += [(path, inside.name) for path in find_recordings([str(inside)])]
        except ConfigError as error:
            say(f"warning: class {inside.name} is left out: {error}", sys.stderr)
    if not listed:
        raise DataError(f"no folder in {folder} has sound files; give recordings of each class")
    found, failures = read_each(
        [path for path, _ in listed], lambda path: _read(path, config.mel.sample_rate), "reading", quiet
    )
    kept = [(wav, listed[n][1]) for n, wav in found]
    from vcae.anomaly.openset import OpenSetClassifier

    with progress("fitting", quiet) as tell:
        wavs, labels = [wav for wav, _ in kept], [label for _, label in kept]
        model = OpenSetClassifier.fit(wavs, labels, config, lambda done, total: tell(done / max(total, 1)))
    for name in model.facts["single"]:
        sys.stderr.write(
            f"warning: class {name} has a single file, which is used for training; none was held out for the threshold: add more\n"
        )
    model.save(output)
    facts = model.facts
    sizes = ", ".join(f"{name} {n}" for name, n in sorted(facts["recordings"].items()))
    sentence = (
        f"wrote {output}: {len(model.classes)} classes ({sizes}), {facts['held_out']} of {len(kept)} recordings held out, "
        f"{facts['held_out_accuracy']:.0%} of those correct{failures}"
    )
    values = {"model": str(output), "classes": list(model.classes), "thresholds": model.thresholds, **facts}
    report({**values, "failed": failures.n}, sentence, str(output), quiet, json)
    failures.leave()


@takes_many
def classify(
    sources: SourcesArgument,
    run: Run,
    model: ModelOption,
    by: Annotated[
        By | None,
        typer.Option(metavar=choices(By), help="Score that decides whether a sound is unknown; by default the model's choice."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Threshold of that score; by default the model's own.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the answers to a CSV file.")] = None,
) -> None:
    """Classify each of SOURCES, with a confidence, or as unknown.

    Example: vcae anomaly classify new/ -m machines.safetensors
    """
    if output is not None:
        check_target(output, run.force)
    build = partial(Classifier, model, by.value if by else None, threshold)
    if run.out_dir is not None:
        work(build, sources, None, run)
        return
    jobs = plan_collected(Classifier, sources, run)
    names = {job.source: job.name for job in jobs}

    def say_row(outcome: Outcome) -> None:
        row, sentence = outcome.value
        if not run.quiet:
            say(json_module.dumps(row) if run.json else f"{names[outcome.source]}: {sentence}", sys.stdout)

    found = collect(jobs, build, run, say_row)
    if output is not None:
        rows = [outcome.value[0] for outcome in found.made]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_file(output, text.getvalue())
    found.leave()


@user_errors
def evaluate(
    model: ModelOption,
    normal: Annotated[
        list[str] | None, typer.Option(metavar="SOURCES", help="Normal recordings: files or folders. Repeat it for more.")
    ] = None,
    anomalous: Annotated[
        list[str] | None, typer.Option(metavar="SOURCES", help="Anomalous recordings: files or folders. Repeat it for more.")
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For classes: a folder per class, of recordings that were not used for training."),
    ] = None,
    unknown: Annotated[
        list[str] | None, typer.Option(metavar="SOURCES", help="For classes: recordings of no known class.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the report.")] = Path("anomalies"),
    threshold: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Threshold on the score; by default the model's own.")
    ] = None,
    cost_miss: Annotated[float, typer.Option(metavar="COST", help="Cost of an anomaly called normal.")] = 100.0,
    cost_false_alarm: Annotated[float, typer.Option(metavar="COST", help="Cost of a normal recording called anomalous.")] = 1.0,
    prior: Annotated[float, typer.Option(metavar="0..1", help="Fraction of anomalies in use.")] = 0.01,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Draw the worst mistakes.")] = True,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the bootstrap.")] = 0,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Evaluate a model on labelled recordings that were not used for training; write a page with curves, players and pictures.

    A detector needs --normal and --anomalous; a classifier needs --known and --unknown.

    Example: vcae anomaly evaluate -m fan.safetensors --normal ok/ --anomalous bad/ -o report
    """
    from vcae.anomaly.metrics import CostTable
    from vcae.model_file import find, read_header

    costs = CostTable(cost_miss, cost_false_alarm, prior)
    classes = "vcae" in read_header(find(model))
    if classes:
        if known is None or not unknown or normal or anomalous:
            raise ConfigError(f"{model} is a classifier; evaluate it with --known FOLDER_PER_CLASS and --unknown FOLDER")
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
    given = [(p, False) for p in find_recordings(normal)] + [(p, True) for p in find_recordings(anomalous)]
    rate = detector.config.mel.sample_rate
    found, failures = read_each([p for p, _ in given], lambda p: detector.score(_read(p, rate), rate), "scoring", quiet)
    scored = [Scored(Path(given[n][0]), given[n][1], one.score, one.p_value) for n, one in found]
    usual = gamma_threshold([s.score for s in scored if not s.anomalous]) if sum(not s.anomalous for s in scored) > 2 else None
    chosen = detector.decide(threshold)
    others = {"best F1 on these recordings": f1_threshold([s.anomalous for s in scored], [s.score for s in scored])}
    others |= {} if usual is None else {"90th percentile of a gamma of these normal scores": usual}
    judged = judge(scored, chosen.value, chosen.reason, costs, others, seed=seed)
    facts = {"model": path.name, "sha256": str(detector.info.get("sha256", ""))[:16], "recordings": len(scored)}
    facts |= {"failed": failures.n, "bootstrap seed": seed}

    def draw(source: Path, picture: Path) -> None:
        _draw(detector, _read(str(source), rate), picture, source.name)

    page = write_report(judged, output, facts, draw if pictures else None)
    figures = {name: vars(found) for name, found in judged.figures.items()}
    sentence = f"wrote {page}: " + ", ".join(f"{name} {found}" for name, found in judged.figures.items())
    values = {"page": str(page), **facts, "threshold": chosen.value, "reason": chosen.reason, **figures}
    report(values, f"{sentence}{failures}", str(page), quiet, json)
    failures.leave()


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
            f"{known} holds {', '.join(strange)}, which are not classes of {path}; it has {', '.join(classifier.classes)}: "
            "give these to --unknown"
        )
    given: list[tuple[str, str | None]] = [(p, folder.name) for folder in folders for p in find_recordings([str(folder)])]
    given += [(p, None) for p in find_recordings(unknown)]
    rate = classifier.config.mel.sample_rate
    found, failures = read_each([p for p, _ in given], lambda p: classifier.classify(_read(p, rate)), "classifying", quiet)
    truth, files, answers = [given[n][1] for n, _ in found], [given[n][0] for n, _ in found], [answer for _, answer in found]
    judged = judge_open_set(truth, answers, classifier.thresholds, seed=seed)
    facts = {"model": path.name, "known": sum(t is not None for t in truth), "unknown": sum(t is None for t in truth)}
    facts |= {"failed": failures.n, "bootstrap seed": seed}
    page = write_open_set(output, judged, files, truth, answers, classifier.thresholds, facts)
    by = classifier.config.by
    sentence = (
        f"wrote {page}: {judged['closed_accuracy']:.3f} of the known correctly classified; by {by}: AUROC {judged[by]['auroc']}, "
        f"{judged[by]['accepted']:.3f} accepted with the correct class, {judged[by]['rejected']:.3f} of the unknown rejected"
    )
    plain = {k: {n: vars(v) if n == "auroc" else v for n, v in d.items()} for k, d in judged.items() if isinstance(d, dict)}
    report(
        {"page": str(page), **facts, "closed_accuracy": judged["closed_accuracy"], **plain}, sentence, str(page), quiet, json
    )
    failures.leave()
