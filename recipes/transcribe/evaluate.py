"""Measure the transcriber: `python recipes/transcribe/evaluate.py recipes/transcribe/conf/test.yaml`.

Errors of phones (best path, without lexicon or language model, against the dictionary's usual pronunciation), of letters, and of words, on
speakers that were not trained on: VCTK's, and the readers of LibriSpeech that label.py kept for the test.
"""

import json
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from settings import TranscriberTestRecipe
from words import normalize_transcript, read_dictionary

from vcae.checkpoint import load_module
from vcae.config import load_config
from vcae.errors import VcaeError
from vcae.model.transcriber import LETTERS, PART, PHONES, transcriber_of
from vcae.text.ctc import WordSearch, collapse
from vcae.text.errors import error_rate
from vcae.text.lexicon import load_lexicon
from vcae.training.transcriber import Reading, read_readings


@torch.inference_mode()
def evaluate(readings: list[Reading], recipe: TranscriberTestRecipe) -> dict[str, object]:
    """Return the error rates, and of words one for each pair of weights."""
    network, _ = load_module(recipe.transcriber, PART, transcriber_of)
    lexicon, said = load_lexicon(recipe.lexicon), read_dictionary()
    phones, letters, outputs, spoken = [], [], [], []
    for reading in readings:
        made = [output[0].T.numpy() for output in network(reading.latent.float().T[None])]
        words = normalize_transcript(reading.text)
        outputs.append(made[0])
        spoken.append(words)
        if all(word in said for word in words):
            phones.append(([p for word in words for p in said[word][0]], [PHONES[s - 1] for s, _, _ in collapse(made[0])]))
        heard = "".join(LETTERS[s - 1] for s, _, _ in collapse(made[1]))
        letters.append((" ".join(words), " ".join(heard.split())))
    rates = {}
    started = time.process_time()
    for weight, score in product(recipe.language_weights, recipe.word_scores):
        pairs = []
        for words, output in zip(spoken, outputs, strict=True):
            search = WordSearch(lexicon, language_weight=weight, word_score=score)
            search.add(output)
            pairs.append((words, [word for word, _, _ in search.finish()]))
        rates[f"{weight:g}/{score:g}"] = round(error_rate(pairs), 4)
    known = set(lexicon.words)
    n_words = sum(map(len, spoken))
    return {
        "recordings": len(readings),
        "phone_errors": round(error_rate(phones), 4),
        "letter_errors": round(error_rate(letters), 4),
        "word_errors": rates,
        "words_not_in_lexicon": round(sum(word not in known for words in spoken for word in words) / n_words, 4),
        "search_cpu_s": round(time.process_time() - started, 1),
    }


def main() -> None:
    recipe = load_config(TranscriberTestRecipe, sys.argv[1], sys.argv[2:])
    rng = np.random.default_rng(0)
    found = {}
    for name, path in (("held_out", recipe.held), ("dev", recipe.dev)):
        readings = read_readings(path)
        order = rng.permutation(len(readings))[: recipe.n_recordings]
        found[name] = evaluate([readings[n] for n in sorted(order)], recipe)
        print(name, json.dumps(found[name]), flush=True)
    Path(recipe.output).parent.mkdir(parents=True, exist_ok=True)
    Path(recipe.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
