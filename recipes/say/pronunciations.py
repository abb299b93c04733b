"""Pack the CMU Pronouncing Dictionary, and train the network for words that it does not have.

python recipes/say/pronunciations.py recipes/say/conf/pronunciations.yaml

One word in 50 is held out of the network's training, to report the share of words that it gets right.
"""

import json
import random
import re
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from settings import PronunciationRecipe
from stresses import read_stresses

from vcae.checkpoint import save_module
from vcae.config import load_config, to_dict
from vcae.errors import VcaeError
from vcae.files import hash_file
from vcae.model.pronouncer import PART, STEPS, STRESSED_PHONES, WORD_LETTERS, Pronouncer
from vcae.text.pronunciation import PART as DICTIONARY
from vcae.text.pronunciation import save_dictionary, spell_out

ABOUT = {"author": "The vcae developers", "license": "CC BY 4.0; the CMU Pronouncing Dictionary is under a BSD licence"}


def train(recipe: PronunciationRecipe, said: dict[str, tuple[str, ...]]) -> Pronouncer:
    """Train a pronouncer on words and their phones."""
    torch.manual_seed(recipe.seed)
    rng, network = random.Random(recipe.seed), Pronouncer(recipe.model)
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, (0.9, 0.98))
    phone, letter = ({c: n for n, c in enumerate(symbols, 1)} for symbols in (STRESSED_PHONES, WORD_LETTERS))
    words = [word for word, phones in said.items() if len(phones) < STEPS * len(word)]
    n_batches = int(recipe.n_epochs * len(words) / recipe.batch_words)
    for n in range(n_batches):
        # Words of similar lengths: a quarter of those drawn.
        drawn = sorted(rng.sample(words, 4 * recipe.batch_words), key=len)
        first = rng.randrange(4) * recipe.batch_words
        batch = drawn[first : first + recipe.batch_words]
        letters = torch.nn.utils.rnn.pad_sequence([torch.tensor([letter[c] for c in word]) for word in batch], batch_first=True)
        targets = [torch.tensor([phone[p] for p in said[word]]) for word in batch]
        made = network(letters).permute(2, 0, 1)
        sizes = torch.tensor([STEPS * len(word) for word in batch]), torch.tensor([len(t) for t in targets])
        loss = F.ctc_loss(made, torch.cat(targets), *sizes, zero_infinity=True)
        for options in optimizer.param_groups:
            options["lr"] = recipe.learning_rate * min(1, 20 * n / n_batches) * (1 - n / n_batches)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if n % 100 == 0:
            print(
                json.dumps({"batch": n, "of": n_batches, "loss": float(loss.detach()), "cpu_s": time.process_time()}),
                flush=True,
            )
    return network.eval()


def main() -> None:
    recipe = load_config(PronunciationRecipe, sys.argv[1], sys.argv[2:])
    found = read_stresses()
    said = {word: tuple(phones[0].split()) for word, phones in found.items() if re.fullmatch(r"[a-z][a-z']*", word)}
    held = {word: phones for n, (word, phones) in enumerate(sorted(said.items())) if n % recipe.hold_out_every == 0}
    network = train(recipe, {word: phones for word, phones in said.items() if word not in held})
    spoken = spell_out(network, list(held))
    right = sum(a == b for a, b in zip(spoken, held.values(), strict=True)) / len(held)
    plain = [[tuple(p.rstrip("012") for p in phones) for phones in words] for words in (spoken, held.values())]
    facts = {"words": len(said), "held_words_right": round(right, 4)}
    facts["without_stress"] = round(sum(a == b for a, b in zip(*plain, strict=True)) / len(held), 4)
    print(json.dumps(facts))
    folder = Path(recipe.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    save_module(
        folder / "pronouncer.safetensors", PART, network, to_dict(recipe.model), ABOUT | facts, half=True, eight_bit=True
    )
    metadata = {"format": 1, DICTIONARY: {"words": len(said)}, "info": {"name": "pronunciations", **ABOUT}}
    save_dictionary(folder / "pronunciations.safetensors", said, json.dumps(metadata))
    for name in ("pronouncer", "pronunciations"):
        path = folder / f"{name}.safetensors"
        path.with_suffix(".sha256").write_text(f"{hash_file(path)}  {path.name}\n")
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
