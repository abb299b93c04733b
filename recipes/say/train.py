"""Train the acoustic model on what prepare.py wrote: `python recipes/say/train.py recipes/say/conf/base.yaml`."""

import json
import sys
import time
from pathlib import Path

import torch

from vcae.checkpoint import save_module
from vcae.config import load_config, to_dict
from vcae.errors import VcaeError
from vcae.model.acoustic import PART
from vcae.training.acoustic import AcousticRecipe, AcousticTraining, losses_of, make_batch, read_spoken


def main() -> None:
    recipe = load_config(AcousticRecipe, sys.argv[1], sys.argv[2:])
    found = read_spoken(recipe.spoken)
    held = found[:: recipe.hold_out_every]
    training, started = (
        AcousticTraining(recipe, [s for n, s in enumerate(found) if n % recipe.hold_out_every]),
        time.process_time(),
    )
    print(f"{len(training.found)} recordings are trained on, {len(held)} held out", flush=True)
    batch = make_batch(held, training.sizes.speakers)
    while training.epoch < recipe.n_epochs:
        losses = training.run_epoch()
        network = training.averaged()
        with torch.inference_mode():
            judged = {f"held_{name}": float(value) for name, value in losses_of(network, batch).items()}
        facts = {"epoch": training.epoch, **losses, **judged}
        print(json.dumps({**facts, "cpu_s": time.process_time() - started}), flush=True)
        info = {**facts, "git_commit": training.commit}
        save_module(Path(recipe.output_dir) / "last.safetensors", PART, network, to_dict(training.sizes), info)


if __name__ == "__main__":
    try:
        main()
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
