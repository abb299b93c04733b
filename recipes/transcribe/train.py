"""Train the transcriber on what prepare.py wrote: `python recipes/transcribe/train.py recipes/transcribe/conf/base.yaml`."""

import json
import sys
import time
from pathlib import Path

import torch
from words import held_out, normalize_transcript, read_dictionary

from vcae.checkpoint import save_module
from vcae.config import load_config, to_dict
from vcae.errors import VcaeError
from vcae.model.transcriber import PART, Transcriber
from vcae.text.ctc import collapse
from vcae.text.errors import error_rate
from vcae.training.config import TranscriberRecipe
from vcae.training.transcriber import Item, TranscriberTraining, make_items, read_readings


@torch.inference_mode()
def error_rates(network: Transcriber, items: list[Item]) -> list[float]:
    """Return the error rates of phones and of letters, without a language model."""
    pairs = [[], []]
    for item in items:
        made = network(item.latent.float().T[None])
        for kind, (output, wanted) in enumerate(zip(made, (item.phones, item.letters), strict=True)):
            pairs[kind].append((wanted.tolist(), [s for s, _, _ in collapse(output[0].T.numpy())]))
    return [error_rate(kind) for kind in pairs]


def main() -> None:
    recipe = load_config(TranscriberRecipe, sys.argv[1], sys.argv[2:])
    said = {word: found[0] for word, found in read_dictionary().items()}
    train, held = held_out(read_readings(recipe.latents), recipe.held_corpus, recipe.hold_out_every)
    items, held_items = (make_items(part, normalize_transcript, said) for part in (train, held))
    print(f"{len(items)} of {len(train)} recordings are trained on, {len(held_items)} of {len(held)} held out", flush=True)
    training, started = TranscriberTraining(recipe, items), time.process_time()
    while training.epoch < recipe.n_epochs:
        loss = training.run_epoch()
        network = training.averaged()
        phones, letters = error_rates(network, held_items)
        facts = {"epoch": training.epoch, "loss": loss, "held_phone_errors": phones, "held_letter_errors": letters}
        print(json.dumps({**facts, "cpu_s": time.process_time() - started}), flush=True)
        info = {**facts, "git_commit": training.commit}
        save_module(Path(recipe.output_dir) / "last.safetensors", PART, network, to_dict(recipe.model), info)


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
