"""The tasks: each returns the rows of a table, with paired comparisons of systems on the same trials."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from features import (
    N_PARTS,
    STEP_S,
    STRIDE,
    Steps,
    active_steps,
    ceiling_vectors,
    cepstral_statistics,
    parts,
    speaker_vectors,
)
from recordings import Recording
from settings import ProbeRecipe

from vcae.audio.config import MelConfig
from vcae.evaluation.alignment import SILENT_PHONES, Alignment
from vcae.evaluation.probes import (
    accuracy,
    bootstrap_mean,
    classify,
    cosines,
    draw_examples,
    verification_error,
    within_whitening,
)
from vcae.evaluation.units import Grid, dtw_distances

Table = list[list[str]]
SHOTS = (1, 5, 20)
MIN_WORD_S = 0.16
# Equal parts of a word.
WORD_PARTS = 8
# Longer pieces are shortened to this many steps before time warping.
MAX_WARPED = 50
WAYS = ("centroid", "logistic", "warped")
MAX_PHONE_STEPS = 12000


def _percent(estimate: object) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"  # type: ignore[attr-defined]


def voices(recipe: ProbeRecipe, tested: Sequence[Recording], train: Sequence[Recording]) -> dict[str, np.ndarray]:
    """Return the voice vectors of recordings by system: plain, and standardised or whitened by training speakers."""
    names = [r.speaker for r in train]
    own, own_train = speaker_vectors(recipe, tested), speaker_vectors(recipe, train)
    mfcc, mfcc_train = cepstral_statistics(tested), cepstral_statistics(train)
    found = {
        "vcae": own,
        "vcae, whitened": (own - own_train.mean(axis=0)) @ within_whitening(own_train, names),
        "MFCC statistics": mfcc,
        "MFCC, standardised by training speakers": (mfcc - mfcc_train.mean(axis=0)) / mfcc_train.std(axis=0),
        "MFCC, standardised by the tested": (mfcc - mfcc.mean(axis=0)) / mfcc.std(axis=0),
        "MFCC, whitened": (mfcc - mfcc_train.mean(axis=0)) @ within_whitening(mfcc_train, names),
    }
    ceiling = ceiling_vectors(tested) if recipe.ceiling else None
    return found if ceiling is None else {**found, "Resemblyzer": ceiling}


def verification(recipe: ProbeRecipe, systems: dict[str, np.ndarray], speakers: Sequence[str]) -> Table:
    """Score all pairs of different recordings."""
    rows = [["system", "EER"]]
    for name, vectors in systems.items():
        rows.append([name, _percent(verification_error(cosines(vectors), speakers, recipe.bootstrap, recipe.seed))])
    return rows


def identification(recipe: ProbeRecipe, systems: dict[str, np.ndarray], speakers: Sequence[str]) -> Table:
    """Identify speakers from 1, 5 and 10 of their recordings; only those with two more are tested."""
    names, counts = np.asarray(speakers), Counter(speakers)
    head, rows = ["system"], {name: [name] for name in systems}
    for shots in (1, 5, 10):
        asked = np.flatnonzero([counts[s] >= shots + 2 for s in speakers])
        if len(set(names[asked])) < 2:
            continue
        head += [f"{shots} of {len(set(names[asked]))}, {c}" for c in ("centroid", "logistic")]
        for system, vectors in systems.items():
            for classifier in ("centroid", "logistic"):
                rng, right, groups = np.random.default_rng(recipe.seed), list[bool](), list[str]()
                for _ in range(recipe.draws):
                    chosen = asked[draw_examples(names[asked], shots, rng)]
                    rest = np.setdiff1d(asked, chosen)
                    predicted = classify(vectors[chosen], names[chosen], vectors[rest], classifier)
                    right += list(predicted == names[rest])
                    groups += list(names[rest])
                rows[system].append(_percent(bootstrap_mean(right, groups, seed=recipe.seed)))
    return [head, *rows.values()]


@dataclass(frozen=True)
class Items:
    """Items to classify: pieces (T', D) of each system's features, their classes and speakers, and which of them may be examples."""

    pieces: dict[str, list[np.ndarray]]
    labels: np.ndarray
    speakers: np.ndarray
    example: np.ndarray


def nearest(distances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the class of the nearest example: distances (n, m), labels (m,) of the examples."""
    return np.asarray(labels[distances.argmin(axis=1)])


def few_shot(
    recipe: ProbeRecipe,
    items: Items,
    splits: dict[str, list[tuple[np.ndarray, np.ndarray]]],
    n_parts: int = N_PARTS,
    peer: str = "MFCC",
) -> Table:
    """Classify from few examples by three methods; the last column is the difference between the best method and the best of MFCC.

    Args:
        recipe: Settings, for the seed.
        items: Items to classify.
        splits: Indices of examples and of tested items, for several splits, by heading.
        n_parts: Equal parts whose means are the input of centroid and logistic; `warped` uses all steps.
        peer: Prefix of the names of the peers.
    """
    right: dict[tuple[str, str, str], np.ndarray] = {}
    groups = {head: np.concatenate([items.speakers[test] for _, test in pairs]) for head, pairs in splits.items()}
    for system, pieces in items.pieces.items():
        vectors = np.stack([parts(p, n_parts) for p in pieces])
        warped = _warp(pieces, splits)
        for head, pairs in splits.items():
            known = [(examples, test, items.labels[examples]) for examples, test in pairs]
            found = {w: [classify(vectors[e], labels, vectors[t], w) for e, t, labels in known] for w in WAYS[:2]}
            found["warped"] = [nearest(warped[np.ix_(t, e)], labels) for e, t, labels in known]
            wanted = np.concatenate([items.labels[test] for _, test in pairs])
            for way, predicted in found.items():
                right[system, head, way] = (np.concatenate(predicted) == wanted).astype(float)
    rows = [["examples of classes", "features", *WAYS, "best way less the best MFCC"]]
    for head in splits:
        best = max((right[s, head, w] for s in items.pieces if s.startswith(peer) for w in WAYS), key=np.mean)
        for system in items.pieces:
            cells = [_percent(bootstrap_mean(right[system, head, w], groups[head], seed=recipe.seed)) for w in WAYS]
            own = max((right[system, head, w] for w in WAYS), key=np.mean)
            lead = bootstrap_mean(own - best, groups[head], seed=recipe.seed)
            shown = f"{100 * lead.value:+.1f} [{100 * lead.low:+.1f}, {100 * lead.high:+.1f}]"
            rows.append([head, system, *cells, "" if system.startswith(peer) else shown])
    return rows


def _warp(pieces: Sequence[np.ndarray], splits: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> np.ndarray:
    """Return the time-warped distances (n, n) of all tested pieces from all examples, nan elsewhere."""
    used, tested = (np.unique(np.concatenate([pair[k] for pairs in splits.values() for pair in pairs])) for k in (0, 1))
    short = [p if len(p) <= MAX_WARPED else parts(p, MAX_WARPED).reshape(MAX_WARPED, -1) for p in pieces]
    table = np.full((len(pieces), len(pieces)), np.nan)
    table[np.ix_(tested, used)] = dtw_distances([short[i] for i in tested], [short[i] for i in used])
    return table


def by_speakers(items: Items, shots: Sequence[int]) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return splits in which some speakers give one example of each class and the others are tested, for all combinations."""
    names, at = sorted(set(items.speakers)), np.arange(len(items.labels))
    n = len(set(items.labels))
    return {
        f"{k} of {n}": [
            (at[np.isin(items.speakers, chosen)], at[~np.isin(items.speakers, chosen)])
            for chosen in itertools.combinations(names, k)
        ]
        for k in shots
        if k < len(names)
    }


def sentences(recordings: Sequence[Recording], steps: dict[str, Steps], seconds: float) -> Items:
    """Cut the first seconds of sentences (all of them if 0), without the silence around them."""
    most = round(seconds / STEP_S) if seconds else None
    spans = []
    for recording in recordings:
        at = np.flatnonzero(active_steps(recording.mel))
        first, last = (int(at[0]), int(at[-1]) + 1) if len(at) else (0, -(-recording.mel.shape[1] // STRIDE))
        spans.append((first, last if most is None else min(last, first + most)))
    pieces = {name: [v[a:b] for v, (a, b) in zip(found.values, spans, strict=True)] for name, found in steps.items()}
    labels, speakers = (np.array([getattr(r, part) for r in recordings]) for part in ("transcript", "speaker"))
    return Items(pieces, labels, speakers, np.ones(len(labels), bool))


def words(
    recipe: ProbeRecipe,
    recordings: Sequence[Recording],
    aligned: Sequence[Alignment | None],
    steps: dict[str, Steps],
    n_tested: int,
) -> Items | None:
    """Cut out the most frequent words; those of the first `n_tested` recordings are tested, the others are examples."""
    found = [
        (w.label, n, round(w.start_s / STEP_S), round(w.end_s / STEP_S))
        for n, alignment in enumerate(aligned)
        for w in (alignment.words if alignment else ())
        if w.end_s - w.start_s >= MIN_WORD_S
    ]
    shown, asked = (Counter(w for w, n, _, _ in found if (n < n_tested) == tested) for tested in (False, True))
    able = [w for w in sorted(asked) if shown[w] >= max(SHOTS) and asked[w] >= 2]
    chosen = sorted(able, key=lambda w: (-asked[w], w))[: recipe.n_words]
    kept = [entry for entry in found if entry[0] in chosen]
    if len(chosen) < 2:
        return None
    pieces = {name: [s.values[n][a : max(b, a + 1)] for _, n, a, b in kept] for name, s in steps.items()}
    return Items(
        pieces,
        np.array([w for w, *_ in kept]),
        np.array([recordings[n].speaker for _, n, *_ in kept]),
        np.array([n >= n_tested for _, n, *_ in kept]),
    )


def word_splits(recipe: ProbeRecipe, items: Items) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Draw 1, 5 and 20 examples of each word, and test all words of the test recordings."""
    pool, test, rng = np.flatnonzero(items.example), np.flatnonzero(~items.example), np.random.default_rng(recipe.seed)
    n = len(set(items.labels))
    return {
        f"{k} of {n}": [(pool[draw_examples(items.labels[pool], k, rng)], test) for _ in range(recipe.draws)] for k in SHOTS
    }


def matrix(
    recipe: ProbeRecipe,
    recordings: Sequence[Recording],
    aligned: Sequence[Alignment | None],
    steps: dict[str, Steps],
    embedding: np.ndarray,
) -> Table:
    """Train linear probes on each feature for the speaker (by recording and by step), the sentence and the phone."""
    names = np.array([r.speaker for r in recordings])
    order = np.array([int(np.sum(names[:n] == s)) for n, s in enumerate(names)])
    first, second = np.flatnonzero(order % 2 == 0), np.flatnonzero(order % 2)
    spoken = Counter(r.transcript for r in recordings)
    shared = np.flatnonzero([bool(r.transcript) and spoken[r.transcript] >= 3 for r in recordings])
    texts = np.array([r.transcript for r in recordings])
    phones = [_phones(a, r) for a, r in zip(aligned, recordings, strict=True)]
    heard = [active_steps(r.mel) for r in recordings]
    n_phones = len(set(np.concatenate(phones)) - {""})
    n = len(set(names))
    rows = [["features", "D", "speaker, whole recording", "speaker, one step", "sentence", "phone, one step"]]

    def accuracy_of(vectors: np.ndarray, labels: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]]) -> str:
        shares = [accuracy(classify(vectors[a], labels[a], vectors[b], "logistic"), labels[b]) for a, b in splits]
        return f"{np.mean(shares):.3f}".removeprefix("0")

    halves = [(first, second), (second, first)]
    readers = sorted(set(names[shared]))
    lofo = [(shared[names[shared] != s], shared[names[shared] == s]) for s in readers]
    # Speakers with few shared sentences are left out, as they would have the same weight as others.
    lofo = [(a, b) for a, b in lofo if len(b) > 2 and set(texts[b]) <= set(texts[a])]
    speaker_row = [
        "speaker embedding",
        str(embedding.shape[1]),
        accuracy_of(embedding, names, halves),
        "",
        accuracy_of(embedding, texts, lofo) if lofo else "",
        "",
    ]
    rows.append(speaker_row)
    for name, found in steps.items():
        values = [v[h] for v, h in zip(found.values, heard, strict=True)]
        whole = np.stack([np.concatenate([v.mean(axis=0), v.std(axis=0)]) for v in values])
        vectors = np.stack([parts(v) for v in values])
        x, who = np.concatenate(values), np.repeat(np.arange(len(names)), [len(v) for v in values])
        what = np.concatenate([p[h] for p, h in zip(phones, heard, strict=True)])
        pick = np.random.default_rng(recipe.seed).permutation(len(x))[:MAX_PHONE_STEPS]
        pick = pick[what[pick] != ""] if n_phones else pick
        even = np.isin(who[pick], first)
        by_recording = [(pick[even], pick[~even])]
        # Phones are tested on other speakers than those of the training.
        known = np.isin(names[who[pick]], sorted(set(names))[::2])
        cells = [
            accuracy_of(whole, names, halves),
            accuracy_of(x, names[who], by_recording),
            accuracy_of(vectors, texts, lofo) if lofo else "",
        ]
        phone = accuracy_of(x, what, [(pick[known], pick[~known]), (pick[~known], pick[known])]) if n_phones else ""
        rows.append([name, str(x.shape[1]), *cells, phone])
    chance = [f"{1 / n:.3f}", f"{1 / n:.3f}", f"{1 / max(len(set(texts[shared])), 1):.3f}", f"{1 / max(n_phones, 1):.3f}"]
    rows.append(["chance", "", *(c.removeprefix("0") for c in chance)])
    return rows


def _phones(alignment: Alignment | None, recording: Recording) -> np.ndarray:
    """Return the phone of each step, empty in pauses and where it is unknown."""
    n = -(-recording.mel.shape[1] // STRIDE)
    if alignment is None:
        return np.full(n, "", dtype="<U4")
    grid, names = Grid(STEP_S, (STRIDE - 1) / 2 / MelConfig().frame_rate), np.full(n, "", dtype="<U4")
    for phone in alignment.phones:
        start, end = grid.span(phone.start_s, phone.end_s, n)
        if phone.label not in SILENT_PHONES:
            names[start:end] = phone.label
    return names
