"""Join networks trained apart to one whose mask is the mean of theirs: `python recipes/denoise/join.py SUB_BANDS.safetensors GAINS.safetensors OUTPUT`.

SUB_BANDS is a denoiser of this version; GAINS one of commit 2dc7c46, whose network gave gains of bands alone.
"""

import sys
from dataclasses import replace
from pathlib import Path

from vcae.checkpoint import load_module, read_metadata, read_tensors, save_module
from vcae.config import to_dict
from vcae.errors import VcaeError
from vcae.model.denoiser import PART, Denoiser, denoiser_of


def main() -> None:
    sub_bands, gains, output = map(Path, sys.argv[1:4])
    try:
        network, _ = load_module(sub_bands, PART, denoiser_of)
        sizes, (tensors, _) = read_metadata(gains)[PART], read_tensors(gains)
    except VcaeError as error:
        sys.exit(f"error: {error}")
    names = {"n_bands": "gain_bands", "n_low": "gain_low", "width": "gain_width", "n_layers": "gain_layers"}
    config = replace(network.config, **{new: sizes[old] for old, new in names.items()})
    joined = Denoiser(config)
    state = network.state_dict() | {f"gains.{name}": value.float() for name, value in tensors.items()}
    joined.load_state_dict(state, strict=True)
    save_module(output, PART, joined, to_dict(config), {})
    print(f"{output}: {sum(p.numel() for p in joined.parameters()):,} parameters")


if __name__ == "__main__":
    main()
