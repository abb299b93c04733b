"""Draw a map of voices: training speakers and generated voices, by the first two principal components of the embeddings, coloured by F0.

python recipes/generator/map.py recipes/generator/conf/base.yaml
"""

import math
import sys
from pathlib import Path

import numpy as np

from vcae.checkpoint import read_tensors
from vcae.config import load_config
from vcae.errors import VcaeError
from vcae.figures.plot import need_matplotlib
from vcae.model_file import read_header
from vcae.training.config import GeneratorRecipe
from vcae.voice.new import draw, map_axes, map_voices
from vcae.voice.space import load_priors


def run(recipe: GeneratorRecipe) -> None:
    """Draw voices and write map.png."""
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder, known = Path(recipe.output_dir), load_priors(recipe.output)
    described = read_tensors(folder / "described.safetensors")[0]
    names = read_header(folder / "described.safetensors")["speakers"].split("\n")
    real = [n for n, name in enumerate(names) if "@" not in name and bool((described["speaker"] == n).any())]
    pitch = [math.exp(float(described["pitch"][described["speaker"] == n, 0].mean())) for n in real]
    points = (known.known @ map_axes(known)).numpy()
    places = map_voices([draw(known, recipe.seed + n) for n in range(recipe.n_voices)], known)
    figure = Figure((7.5, 5.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    style = {"cmap": "viridis", "vmin": 80, "vmax": 280}
    axes.scatter(
        points[:, 0], points[:, 1], c=pitch, s=16, alpha=0.55, linewidths=0, label=f"{len(real)} training speakers", **style
    )
    at = np.array([(p.x, p.y, p.f0_hz) for p in places])
    shown = axes.scatter(
        at[:, 0],
        at[:, 1],
        c=at[:, 2],
        s=46,
        marker="^",
        edgecolors="black",
        linewidths=0.7,
        label=f"{len(at)} drawn voices",
        **style,
    )
    figure.colorbar(shown, label="median F0 / Hz")
    axes.set_xlabel("first principal component of the speaker embedding")
    axes.set_ylabel("second")
    axes.legend(loc="best", framealpha=0.9)
    figure.savefig(folder / "map.png")
    print(f"wrote {folder / 'map.png'}")


if __name__ == "__main__":
    try:
        run(load_config(GeneratorRecipe, sys.argv[1], sys.argv[2:]))
    except VcaeError as error:
        raise SystemExit(f"error: {error}") from None
