"""Score discrete units of models and of classical peers: phones, words, speakers and bits, all in one table.

python recipes/units/evaluate.py recipes/units/conf/base.yaml manifest=DATA/manifest.csv
"""

import csv
import functools
import hashlib
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peers import POOL, Peer, learn
from recordings import Recording, find_words, load_recordings, mel_of, parallel_rows, read_rows
from rich.console import Console
from rich.progress import track
from settings import UnitsRecipe

import vcae
from vcae.audio.config import MelConfig
from vcae.audio.frames import active_frames
from vcae.config import load_config, to_dict
from vcae.errors import DataError, VcaeError
from vcae.evaluation import units

COLUMNS = {
    "nmi": "NMI",
    "pnmi": "PNMI",
    "purity": "phone purity",
    "abx_within": "ABX within",
    "abx_across": "ABX across",
    "abx_across_onehot": "ABX across, one-hot",
    "abx_triphone_within": "triphone ABX within",
    "abx_triphone_across": "triphone ABX across",
    "word": "word error",
    "speaker": "speaker probe",
    "perplexity": "perplexity",
    "codebook_size": "of codes",
    "bit_s": "bit/s",
    "bit_s_collapsed": "bit/s collapsed",
}
# Function from a log-mel (n_mels, T) to codes (T',) and their vectors (T', D).
Encode = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class System:
    """System to score."""

    name: str
    codebook_size: int
    grid: units.Grid
    mel: MelConfig
    encode: Encode


def _grid(config: MelConfig, stride: int) -> units.Grid:
    return units.Grid(stride / config.frame_rate, (stride - 1) / 2 / config.frame_rate)


def model_system(name: str) -> System:
    """Return the system of a checkpoint: the codes of its first stage, and the decoder's input for them."""
    autoencoder = vcae.load(name, device="cpu").autoencoder

    @torch.inference_mode()
    def encode(mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        codes = autoencoder.encode_units(torch.from_numpy(mel)[None])[:, :1]
        return codes[0, 0].numpy(), autoencoder.decode_units(codes)[0].T.numpy()

    encode(np.zeros((autoencoder.config.mel.n_mels, 8), dtype=np.float32))
    config, quantizer = autoencoder.config, autoencoder.config.quantizer
    return System(
        Path(name).stem,
        quantizer.codebook_size if quantizer else 0,
        _grid(config.mel, config.content.stride),
        config.mel,
        encode,
    )


def peer_system(name: str, recipe: UnitsRecipe, rows: list[dict[str, str]]) -> System:
    """Train a peer and return its system."""
    config, root = MelConfig(), Path(recipe.manifest).parent
    wanted = sorted(row["path"] for row in rows if row["split"] == recipe.train_split)
    chosen = random.Random(recipe.seed).sample(wanted, min(recipe.train_utterances, len(wanted)))
    if not chosen:
        raise DataError(f"{recipe.manifest} has no rows of the split {recipe.train_split!r}; set train_split, or peers to []")
    key = hashlib.sha256("\n".join(chosen).encode()).hexdigest()

    def mels() -> list[np.ndarray]:
        return [mel_of(root / path, config) for path in track(chosen, description=name, console=Console(stderr=True))]

    peer: Peer = learn(name, recipe.codebook_size, mels, Path(recipe.output_dir) / "peers", key, recipe.seed)
    return System(f"k-means {name}", recipe.codebook_size, _grid(config, POOL), config, peer.encode)


def score(system: System, recordings: list[Recording], spoken: list[Recording], recipe: UnitsRecipe) -> dict[str, float]:
    """Return all scores of a system; `spoken` are recordings of prompts that several speakers read."""
    codes, vectors = _encode(system, recordings)
    aligned = [n for n, r in enumerate(recordings) if r.alignment]
    phones = [recordings[n].alignment.phones for n in aligned]
    speakers, lengths = [recordings[n].speaker for n in aligned], [len(codes[n]) for n in aligned]
    labels = [units.label_steps(p, n, system.grid) for p, n in zip(phones, lengths, strict=True)]
    counts = units.count_jointly(np.concatenate([codes[n] for n in aligned]), np.concatenate(labels), system.codebook_size)
    tokens, triples = (units.find_tokens(phones, speakers, lengths, system.grid, t) for t in (False, True))
    features, hot = [vectors[n] for n in aligned], [units.one_hot(codes[n], system.codebook_size) for n in aligned]
    abx = units.abx_error(features, tokens, False, recipe.abx_tokens, recipe.seed)
    abx_hot = units.abx_error(hot, tokens, False, recipe.abx_tokens, recipe.seed)
    triphone = units.abx_error(features, triples, True, recipe.abx_tokens, recipe.seed)
    stride = round(system.grid.step_s * system.mel.frame_rate)
    mels = [torch.from_numpy(mel_of(r.path, system.mel))[None] for r in recordings]
    keep = [active_frames(mel)[0, 0, ::stride].numpy() > 0 for mel in mels]
    probe, chance = units.probe_speaker(codes, [r.speaker for r in recordings], system.codebook_size, keep, recipe.seed)
    seconds = sum(len(c) for c in codes) * system.grid.step_s
    word_codes, word_vectors = _encode(system, spoken)
    words = find_words(spoken, word_codes, system.grid)
    word = units.word_error(word_vectors, words, seed=recipe.seed)
    return {
        "nmi": units.normalized_mutual_information(counts),
        "pnmi": units.phone_normalized_mutual_information(counts),
        "purity": units.phone_purity(counts),
        "abx_within": abx.within,
        "abx_across": abx.across,
        "abx_within_onehot": abx_hot.within,
        "abx_across_onehot": abx_hot.across,
        "abx_triphone_within": triphone.within,
        "abx_triphone_across": triphone.across,
        "abx_cells_within": abx.n_within,
        "abx_cells_across": abx.n_across,
        "abx_triphone_cells_within": triphone.n_within,
        "abx_triphone_cells_across": triphone.n_across,
        "word": word.abx,
        "word_nearest": word.nearest,
        "words": word.n,
        "speaker": probe,
        "speaker_chance": chance,
        "perplexity": units.perplexity(np.concatenate(codes)),
        "codebook_size": system.codebook_size,
        "bit_s": units.bit_rate(codes, seconds),
        "bit_s_collapsed": units.bit_rate([units.collapse(c) for c in codes], seconds),
        "units_s_collapsed": sum(len(units.collapse(c)) for c in codes) / seconds,
        "steps": float(counts.sum()),
        "recordings": len(aligned),
    }


def _encode(system: System, recordings: list[Recording]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    pairs = [system.encode(mel_of(r.path, system.mel)) for r in recordings]
    return [p[0] for p in pairs], [p[1] for p in pairs]


def table(scores: dict[str, dict[str, float]]) -> str:
    """Format the scores as a table in markdown."""
    rows = [["system", *COLUMNS.values()], ["---"] * (1 + len(COLUMNS))]
    for name, values in scores.items():
        rows.append([name, *(_number(key, values[key]) for key in COLUMNS)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _number(key: str, value: float) -> str:
    if key in ("perplexity", "codebook_size") or key.startswith("bit"):
        return f"{value:.0f}"
    percent = key.startswith(("abx", "word"))
    return f"{100 * value:.1f} %" if percent else f"{value:.3f}".removeprefix("0")


def run(recipe: UnitsRecipe, say: Callable[[str], None] = lambda _: None) -> dict[str, dict[str, float]]:
    """Score every system and write `results.json` and `results.csv`; print the row of each when it is done."""
    rows, output = read_rows(recipe), Path(recipe.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    recordings = load_recordings(recipe, [row for row in rows if row["split"] == recipe.split])
    spoken = load_recordings(recipe, parallel_rows(recipe, rows))
    if not any(r.alignment for r in recordings):
        raise DataError(
            f"no recording of the split {recipe.split!r} in {recipe.manifest} could be aligned; it needs transcripts"
        )
    makers = [functools.partial(peer_system, name, recipe, rows) for name in recipe.peers]
    makers += [functools.partial(model_system, name) for name in recipe.checkpoints]
    found: dict[str, dict[str, float]] = {}
    for make in makers:
        system = make()
        found[system.name] = score(system, recordings, spoken, recipe)
        say(table({system.name: found[system.name]}).splitlines()[-1])
    facts = {"recipe": to_dict(recipe), "version": vcae.__version__, "systems": found}
    (output / "results.json").write_text(json.dumps(facts, indent=1) + "\n")
    with (output / "results.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        keys = list(next(iter(found.values()), {}))
        writer.writerows([["system", *keys], *([name, *(values[k] for k in keys)] for name, values in found.items())])
    return found


def main() -> None:
    recipe = load_config(UnitsRecipe, sys.argv[1], sys.argv[2:])
    print("\n".join(table({}).splitlines()))
    found = run(recipe, lambda row: print(row, flush=True))
    chance = next((values["speaker_chance"] for values in found.values()), float("nan"))
    print(f"chance of the speaker probe: {chance:.3f}; wrote {recipe.output_dir}/results.json and results.csv")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        sys.exit(f"error: {error}")
