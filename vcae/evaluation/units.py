"""Scores of discrete speech units: discrimination of phones and words, speaker information, and bit rate.

Everything here is a pure function of codes, vectors and alignments. Codes are (T,) integers of one recording, features (T, D) vectors of
one; a `Grid` gives the times of their steps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from vcae.errors import DataError
from vcae.evaluation.alignment import SILENT_PHONES, Interval

# Distances are summed as integers with the path's length in the low bits: ties are exact, and go to the shorter path.
RESOLUTION = 1 << 20
LENGTH_BITS = 12
# Tokens of about one length are compared at once; groups no larger than this are not divided.
LENGTHS = (1, 2, 3, 4, 6, 9, 14)
SMALL_GROUP = 256
PROBE_CONTEXT = 3
PROBE_STEPS = 400
PROBE_BATCH = 2048


@dataclass(frozen=True)
class Grid:
    """Times of a code's steps: the centre of step i is at `first_s + i * step_s`, in seconds."""

    step_s: float
    first_s: float

    def times(self, n: int) -> np.ndarray:
        """Return the centres of n steps (n,), in seconds."""
        return self.first_s + self.step_s * np.arange(n)

    def span(self, start_s: float, end_s: float, n: int) -> tuple[int, int]:
        """Return the first of n steps whose centre is in an interval, and the step after the last one."""
        first, last = (math.ceil((at - self.first_s) / self.step_s - 1e-9) for at in (start_s, end_s))
        return min(max(first, 0), n), min(max(last, 0), n)


def label_steps(phones: Sequence[Interval], n: int, grid: Grid) -> np.ndarray:
    """Return the phone at each of n steps (n,), an empty string in pauses and outside of all phones."""
    labels = np.full(n, "", dtype=object)
    for phone in phones:
        if phone.label not in SILENT_PHONES:
            start, end = grid.span(phone.start_s, phone.end_s, n)
            labels[start:end] = phone.label
    return labels


def count_jointly(codes: np.ndarray, labels: np.ndarray, codebook_size: int) -> np.ndarray:
    """Count the co-occurrences of codes (T,) and labels (T,): (codebook_size, n_labels), labels sorted; steps without a label are ignored."""
    said = labels != ""
    _, index = np.unique(labels[said].astype(str), return_inverse=True)
    counts = np.zeros((codebook_size, int(index.max(initial=-1)) + 1))
    np.add.at(counts, (codes[said], index), 1)
    return counts


def entropy(counts: np.ndarray) -> float:
    """Return the entropy of counts of any shape, in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def mutual_information(counts: np.ndarray) -> float:
    """Return the mutual information of the two axes of counts (K, P), in nats."""
    return max(entropy(counts.sum(1)) + entropy(counts.sum(0)) - entropy(counts), 0.0)


def normalized_mutual_information(counts: np.ndarray) -> float:
    """Return 2 I / (H(code) + H(phone)) of counts (K, P), 0 to 1: the arithmetic normalisation."""
    total = entropy(counts.sum(1)) + entropy(counts.sum(0))
    return 2 * mutual_information(counts) / total if total else 0.0


def phone_normalized_mutual_information(counts: np.ndarray) -> float:
    """Return I / H(phone) of counts (K, P): the fraction of the phone entropy that the code explains. It grows with K.

    Source: PNMI, Hsu et al., HuBERT (2021).
    """
    total = entropy(counts.sum(0))
    return mutual_information(counts) / total if total else 0.0


def phone_purity(counts: np.ndarray) -> float:
    """Return the fraction of steps whose phone is the most likely one of their code, from counts (K, P). Source: Hsu et al., HuBERT (2021)."""
    return float(counts.max(1).sum() / counts.sum())


def perplexity(codes: np.ndarray) -> float:
    """Return the exponential of the entropy of codes (T,), the effective number of codes in use."""
    return math.exp(entropy(np.unique(codes, return_counts=True)[1]))


def collapse(codes: np.ndarray) -> np.ndarray:
    """Return codes (T,) with every run of equal codes collapsed to one: (T',)."""
    return codes[np.concatenate([[True], codes[1:] != codes[:-1]])] if len(codes) else codes


def bit_rate(codes: Sequence[np.ndarray], seconds: float) -> float:
    """Return the unigram entropy of the codes of recordings times codes per second, in bit/s.

    Source: the bit rate of the Zero Resource Speech Challenge 2019, Dunbar et al. (2019). For collapsed codes (`collapse`)
    it is the rate of the sequence of units without their durations.
    """
    flat = np.concatenate(list(codes))
    return entropy(np.unique(flat, return_counts=True)[1]) / math.log(2) * len(flat) / seconds


# ---------------------------------------------------------------- distances


def one_hot(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Return codes (T,) as features (T, codebook_size) with angular distance 0 between equal codes and 0.5 (90 degrees) between others."""
    hot: np.ndarray = np.eye(codebook_size)[codes]
    return hot


def _unit(features: np.ndarray) -> np.ndarray:
    x = features.astype(np.float64)
    unit: np.ndarray = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)
    return unit


def angular_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the angle between unit vectors (..., La, D) and (..., Lb, D) as a fraction of 180 degrees: (..., La, Lb), 0 to 1."""
    angle: np.ndarray = np.arccos(np.clip(first @ second.swapaxes(-1, -2), -1, 1)) / np.pi
    return angle


def _pack(distance: np.ndarray) -> np.ndarray:
    packed: np.ndarray = (np.rint(distance * RESOLUTION).astype(np.int64) << LENGTH_BITS) + 1
    return packed


def _align_in_time(local: np.ndarray, lengths_a: np.ndarray, lengths_b: np.ndarray) -> np.ndarray:
    """Return the mean distance (na, nb) along the best path of each pair; local (La, Lb, na, nb), packed, is overwritten.

    Values beyond a token's end have no effect, as no path to its end passes them.
    """
    n_a, n_b = local.shape[:2]
    for i in range(n_a):
        for j in range(n_b):
            if i and j:
                local[i, j] += np.minimum(np.minimum(local[i - 1, j], local[i, j - 1]), local[i - 1, j - 1])
            elif i or j:
                local[i, j] += local[i - 1, j] if i else local[i, j - 1]
    at_a, at_b = np.arange(local.shape[2])[:, None], np.arange(local.shape[3])[None]
    total = local[lengths_a - 1, lengths_b - 1, at_a, at_b]
    mean: np.ndarray = (total >> LENGTH_BITS) / RESOLUTION / (total & ((1 << LENGTH_BITS) - 1))
    return mean


def _buckets(lengths: np.ndarray) -> list[np.ndarray]:
    if len(lengths) <= 64:
        return [np.arange(len(lengths))]
    found = [np.flatnonzero(np.searchsorted(LENGTHS, lengths) == n) for n in range(len(LENGTHS) + 1)]
    return [f for f in found if len(f)]


def dtw_distances(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """Return the distances between all tokens (Ta, D) of `first` and (Tb, D) of `second`: (len(first), len(second)).

    Dynamic time warping with steps of one in either or both, angular distance, the sum divided by the path's length.

    Source: Schatz et al., Evaluating speech features with the minimal-pair ABX task (2013).
    """
    a, b = ([len(t) for t in tokens] for tokens in (first, second))
    lengths_a, lengths_b = np.array(a, dtype=int), np.array(b, dtype=int)
    start_a, start_b = np.cumsum([0, *a[:-1]]), np.cumsum([0, *b[:-1]])
    frames = _pack(angular_distance(_unit(np.concatenate(list(first))), _unit(np.concatenate(list(second)))))
    found = np.empty((len(a), len(b)))
    for rows in _buckets(lengths_a):
        la = lengths_a[rows]
        index_a = start_a[rows, None] + np.minimum(np.arange(la.max()), la[:, None] - 1)
        for columns in _buckets(lengths_b):
            lb = lengths_b[columns]
            index_b = start_b[columns, None] + np.minimum(np.arange(lb.max()), lb[:, None] - 1)
            local = frames[index_a.T[:, None, :, None], index_b.T[None, :, None, :]]
            found[np.ix_(rows, columns)] = _align_in_time(local, la[:, None], lb[None])
    return found


def dtw_pairs(first: Sequence[np.ndarray], second: Sequence[np.ndarray], batch: int = 2048) -> np.ndarray:
    """Return the distances (n,) of n pairs of tokens (Ta, D), (Tb, D), measured as by `dtw_distances`."""
    lengths_a, lengths_b = (np.array([len(t) for t in tokens], dtype=int) for tokens in (first, second))
    order = np.argsort(np.maximum(lengths_a, lengths_b), kind="stable")
    found = np.empty(len(first))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        padded = []
        for tokens, lengths in ((first, lengths_a[chosen]), (second, lengths_b[chosen])):
            x = np.zeros((len(chosen), lengths.max(), tokens[chosen[0]].shape[1]))
            for row, n in enumerate(chosen):
                x[row, : lengths[row]] = tokens[n]
            padded.append(_unit(x))
        local = _pack(angular_distance(padded[0], padded[1])).transpose(1, 2, 0)[..., None].copy()
        found[chosen] = _align_in_time(local, lengths_a[chosen][:, None], lengths_b[chosen][:, None])[:, 0]
    return found


# ---------------------------------------------------------------- ABX of phones


@dataclass(frozen=True)
class Token:
    """Token of a phone: steps `start` to `end` of a recording, and the neighbouring phones (`SIL` at a pause or an edge)."""

    phone: str
    previous: str
    following: str
    speaker: str
    recording: int
    start: int
    end: int


@dataclass(frozen=True)
class Abx:
    """ABX errors, 0 to 1 with chance at 0.5, and the number of cells (phone pair, context, speakers) of each mean; nan for none."""

    within: float
    across: float
    n_within: int
    n_across: int


def find_tokens(
    phones: Sequence[Sequence[Interval]], speakers: Sequence[str], lengths: Sequence[int], grid: Grid, triphones: bool = False
) -> list[Token]:
    """List the phones of aligned recordings that have at least one step.

    Args:
        phones: Phones of each recording, including pauses.
        speakers: Speaker of each recording.
        lengths: Steps of each recording.
        grid: Times of the steps.
        triphones: Include the steps of both neighbours, and leave out phones next to a pause, as the challenges up to 2020 did.
    """
    found = []
    for recording, (row, speaker, n) in enumerate(zip(phones, speakers, lengths, strict=True)):
        labels = ["SIL" if p.label in SILENT_PHONES else p.label for p in row]
        padded = ["SIL", *labels, "SIL"]
        for i, phone in enumerate(row):
            previous, label, following = padded[i : i + 3]
            if label == "SIL" or (triphones and "SIL" in (previous, following)):
                continue
            first, last = (row[i - 1], row[i + 1]) if triphones else (phone, phone)
            start, end = grid.span(first.start_s, last.end_s, n)
            if end > start:
                found.append(Token(label, previous, following, speaker, recording, start, end))
    return found


def _thin(tokens: Sequence[Token], in_context: bool, n: int, seed: int) -> dict[Hashable, list[Token]]:
    """Group tokens by context, with at most n random tokens per phone, context and speaker."""
    rng = np.random.default_rng(seed)
    cells: dict[tuple[Hashable, str, str], list[Token]] = defaultdict(list)
    for token in tokens:
        cells[((token.previous, token.following) if in_context else None, token.speaker, token.phone)].append(token)
    groups: dict[Hashable, list[Token]] = defaultdict(list)
    for key, cell in cells.items():
        kept = sorted(rng.permutation(len(cell))[:n])
        groups[key[0]] += [cell[k] for k in kept]
    # Groups with a single phone have no phone to compare with.
    return {key: group for key, group in groups.items() if len({t.phone for t in group}) > 1}


def _cell_errors(to_a: np.ndarray, to_b: np.ndarray, phones_b: np.ndarray, same: bool) -> np.ndarray:
    """Return the error for each phone B, from distances of X to A (nA, nX) and to B (nB, nX); `same`: A and X are the same tokens."""
    wrong = (to_a[None] > to_b[:, None]) + 0.5 * (to_a[None] == to_b[:, None])
    if same:
        n = len(to_a)
        each = (wrong.sum((1, 2)) - np.einsum("bii->b", wrong)) / (n * (n - 1))
    else:
        each = wrong.mean((1, 2))
    index = np.unique(phones_b, return_inverse=True)[1]
    means: np.ndarray = np.bincount(index, each) / np.bincount(index)
    return means


def _mean_of_cells(cells: dict[tuple[str, str], dict[tuple[str, str], list[float]]]) -> float:
    pairs = [np.mean([np.mean(contexts) for contexts in by_speaker.values()]) for by_speaker in cells.values()]
    return float(np.mean(pairs)) if pairs else math.nan


def abx_error(
    features: Sequence[np.ndarray], tokens: Sequence[Token], in_context: bool = True, max_tokens: int = 10, seed: int = 0
) -> Abx:
    """Return the ABX error: how often a phone X is nearer to another phone B than to another token A of the same phone.

    Within: all three are from one speaker; across: A and B are from one speaker, X from another. A tie is half an
    error. Errors are averaged over the tokens of a cell, then over contexts, speakers and ordered phone pairs.

    Args:
        features: (T, D) of each recording.
        tokens: From `find_tokens`.
        in_context: Compare only phones with the same neighbours, of which small data sets have few; otherwise all.
        max_tokens: Most tokens per phone, context and speaker; they are chosen at random.
        seed: Seed of the choice.

    Source: Schatz et al. (2013) and Schatz (2016), as used by the Zero Resource Speech Challenges; any context as in Hallap et al.,
    Evaluating context-invariance in unsupervised speech representations (2023).
    """
    within: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    across: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for group in _thin(tokens, in_context, max_tokens, seed).values():
        cut = [features[t.recording][t.start : t.end] for t in group]
        phones = np.array([t.phone for t in group])
        of: dict[str, np.ndarray] = {
            s: np.flatnonzero([t.speaker == s for t in group]) for s in sorted({t.speaker for t in group})
        }
        between = _distances_between(cut, of)
        for s, ours in of.items():
            if len(set(phones[ours])) < 2:
                continue
            for t, theirs in of.items():
                known = set(phones[ours]) & set(phones[theirs])
                distances = between(s, t) if known else None
                for p in sorted(known):
                    a, b, x = phones[ours] == p, phones[ours] != p, phones[theirs] == p
                    if distances is None or (s == t and a.sum() < 2):
                        continue
                    errors = _cell_errors(distances[np.ix_(a, x)], distances[np.ix_(b, x)], phones[ours][b], s == t)
                    cells = within if s == t else across
                    for q, error in zip(np.unique(phones[ours][b]), errors, strict=True):
                        cells[(str(p), str(q))][(s, t)].append(float(error))
    counts = [sum(len(c) for by in cells.values() for c in by.values()) for cells in (within, across)]
    return Abx(_mean_of_cells(within), _mean_of_cells(across), counts[0], counts[1])


def _distances_between(cut: Sequence[np.ndarray], of: dict[str, np.ndarray]) -> Callable[[str, str], np.ndarray]:
    """Return a function of two speakers that gives the distances between their tokens; small groups use one precomputed table."""
    if len(cut) <= SMALL_GROUP:
        whole = dtw_distances(cut, cut)
        return lambda s, t: np.asarray(whole[np.ix_(of[s], of[t])])
    return lambda s, t: dtw_distances([cut[n] for n in of[s]], [cut[n] for n in of[t]])


# ---------------------------------------------------------------- words


@dataclass(frozen=True)
class Word:
    """Token of a word: steps `start` to `end` of a recording of a prompt that several speakers read."""

    label: str
    speaker: str
    prompt: str
    recording: int
    start: int
    end: int


@dataclass(frozen=True)
class WordErrors:
    """Word discrimination errors over n words: against one other word (chance 0.5), and against all drawn words at once."""

    abx: float
    nearest: float
    n: int


def word_error(
    features: Sequence[np.ndarray], words: Sequence[Word], n_others: int = 10, tolerance: float = 0.2, seed: int = 0
) -> WordErrors:
    """Return how often a word of one speaker is nearer to another word of a second speaker than to the same word.

    X is a word, A the same word of the same prompt by another speaker, and each B another word by that speaker, chosen at random among
    those of similar length. Pairs of speakers have equal weight.

    Args:
        features: (T, D) of each recording.
        words: Words of prompts that at least two speakers read.
        n_others: Number of Bs for each X.
        tolerance: Largest difference in length as a fraction; one step is always allowed.
        seed: Seed of the choice.

    Returns:
        The errors; nan if no word is spoken by two speakers.

    Source: after the same-different task, Carlin et al., Rapid evaluation of speech representations for spoken term discovery (2011).
    """
    rng = np.random.default_rng(seed)
    by_speaker: dict[str, list[Word]] = defaultdict(list)
    for word in words:
        by_speaker[word.speaker].append(word)
    first: list[Word] = []
    second: list[Word] = []
    owner: list[int] = []
    pairs: list[tuple[str, str]] = []
    for s, ours in sorted(by_speaker.items()):
        length = np.array([w.end - w.start for w in ours])
        label = np.array([w.label for w in ours])
        at = {(w.prompt, w.label): n for n, w in reversed(list(enumerate(ours)))}
        for t, theirs in sorted(by_speaker.items()):
            for x in theirs if s != t else []:
                a = at.get((x.prompt, x.label))
                if a is None:
                    continue
                near = (np.abs(length - length[a]) <= max(tolerance * length[a], 1)) & (label != x.label)
                others = rng.permutation(np.flatnonzero(near))[:n_others]
                if len(others):
                    first += [ours[n] for n in (a, *others)]
                    second += [x] * (1 + len(others))
                    owner += [len(pairs)] * (1 + len(others))
                    pairs.append((s, t))
    if not pairs:
        return WordErrors(math.nan, math.nan, 0)
    a_cut, x_cut = ([features[w.recording][w.start : w.end] for w in side] for side in (first, second))
    distances = dtw_pairs(a_cut, x_cut)
    borders = np.flatnonzero(np.diff(owner)) + 1
    scores: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for pair, found in zip(pairs, np.split(distances, borders), strict=True):
        wrong, tied = found[1:] < found[0], found[1:] == found[0]
        nearest = 1.0 if wrong.any() else float(1 - 1 / (1 + tied.sum()))
        scores[pair].append((float((wrong + 0.5 * tied).mean()), nearest))
    means = np.mean([np.mean(found, axis=0) for found in scores.values()], axis=0)
    return WordErrors(float(means[0]), float(means[1]), len(pairs))


# ---------------------------------------------------------------- the speaker


def probe_speaker(
    codes: Sequence[np.ndarray],
    speakers: Sequence[str],
    codebook_size: int,
    keep: Sequence[np.ndarray] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the accuracy of a linear speaker classifier on the steps of codes, and chance level.

    Its input is a step's code and three neighbours on each side, all one-hot. Every other recording of a speaker is used for training,
    the others for testing; speakers have equal weight in both.

    Args:
        codes: (T,) of each recording.
        speakers: Speaker of each recording.
        codebook_size: Number of codes.
        keep: Steps (T,) of each recording to use; all when None.
        seed: Seed of the training.

    Raises:
        DataError: If fewer than two speakers have two recordings.
    """
    several = sorted({s for s in speakers if list(speakers).count(s) > 1})
    if len(several) < 2:
        raise DataError(f"{len(several)} speakers have two recordings; the probe needs two such speakers: give more recordings")
    rows: list[list[tuple[np.ndarray, int]]] = [[], []]
    seen: dict[str, int] = defaultdict(int)
    for n, (code, speaker) in enumerate(zip(codes, speakers, strict=True)):
        if speaker in several and len(code):
            at = np.arange(len(code))[:, None] + np.arange(-PROBE_CONTEXT, PROBE_CONTEXT + 1)
            index = code[at.clip(0, len(code) - 1)] + codebook_size * np.arange(2 * PROBE_CONTEXT + 1)
            index = index if keep is None else index[keep[n]]
            rows[seen[speaker] % 2].append((index, several.index(speaker)))
            seen[speaker] += 1
    (x, y), (test_x, test_y) = (
        (
            torch.from_numpy(np.concatenate([r[0] for r in half])),
            torch.from_numpy(np.repeat([r[1] for r in half], [len(r[0]) for r in half])),
        )
        for half in rows
    )
    weight = 1 / torch.bincount(y, minlength=len(several)).clamp(min=1).float()
    random = torch.Generator().manual_seed(seed)
    linear = torch.nn.EmbeddingBag((2 * PROBE_CONTEXT + 1) * codebook_size, len(several), mode="sum")
    torch.nn.init.zeros_(linear.weight)
    optimizer = torch.optim.AdamW(linear.parameters(), 0.02, weight_decay=0.01)
    for _ in range(PROBE_STEPS):
        batch = torch.randint(len(x), (PROBE_BATCH,), generator=random)
        optimizer.zero_grad()
        F.cross_entropy(linear(x[batch]), y[batch], weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        right = (linear(test_x).argmax(-1) == test_y).float()
    shares = [right[test_y == s].mean() for s in range(len(several)) if bool((test_y == s).any())]
    return float(torch.stack(shares).mean()), 1 / len(several)
