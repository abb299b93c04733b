"""Localisation of faults in speech: fraction located to within 100 ms, and false alarms."""

from collections import defaultdict

import numpy as np
from faults import SAMPLE_RATE, Fault
from rich.console import Console
from rich.progress import track
from settings import AnomalyRecipe
from trials import Trial

from vcae.anomaly.detector import Detector
from vcae.anomaly.locate import Place, locate

WITHIN_S = 0.1


def is_located(fault: Fault, place: Place) -> bool:
    """Return whether a place's strongest point is within 100 ms of the fault's extent, or of a splice's point."""
    return fault.start_s - WITHIN_S <= place.time_s <= fault.end_s + WITHIN_S


def location_rows(recipe: AnomalyRecipe, trial: Trial) -> list[list[str]]:
    """Return by kind of fault how many recordings have it as the first or among the first three places, and places in clean ones."""
    detector = Detector.fit([c.load() for c in trial.train], SAMPLE_RATE, recipe.model)
    first, three, edges, places = defaultdict(list), defaultdict(list), defaultdict(list), []
    seconds = 0.0
    for clip in track(trial.test, description="locations", console=Console(stderr=True)):
        wav, faults = clip.make()
        found = detector.score(wav, SAMPLE_RATE)
        named = locate(wav, SAMPLE_RATE, found.frame_scores, found.hop_s, limits=detector.limits)
        if not faults:
            places.append(len(named))
            seconds += len(wav) / SAMPLE_RATE
        for fault in faults:
            first[fault.kind].append(any(is_located(fault, p) for p in named[:1]))
            three[fault.kind].append(any(is_located(fault, p) for p in named[:3]))
            near = [min(abs(t - p.time_s) for t in (fault.start_s, fault.end_s)) for p in named[:3]]
            edges[fault.kind].append(min(near, default=np.inf) <= WITHIN_S)
    rows = [
        [
            "fault",
            "recordings",
            "first place within 100 ms",
            "one of the first three",
            "an end of it within 100 ms of one of these",
        ]
    ]
    for kind in first:
        rows.append([kind, str(len(first[kind])), *(f"{np.mean(hits[kind]):.2f}" for hits in (first, three, edges))])
    rows.append(["none (clean)", str(len(places)), f"{60 * sum(places) / max(seconds, 1e-9):.1f} places a minute", "", ""])
    return rows
