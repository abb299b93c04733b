"""Write a checkpoint's vocoder as ONNX: `python recipes/release/export_onnx.py [CHECKPOINT] OUT.onnx`."""

import sys
from pathlib import Path

from vcae import checkpoint
from vcae.vocoder.export import INPUTS, export_onnx


def main() -> None:
    name, out = sys.argv[1:] if len(sys.argv) == 3 else (checkpoint.DEFAULT, sys.argv[1])
    loaded = checkpoint.load(name)
    if loaded.vocoder is None:
        raise SystemExit(f"{loaded.path} has no vocoder; give a checkpoint that has one")
    export_onnx(loaded.vocoder, out)
    print(f"wrote {out}: {Path(out).stat().st_size / 1e6:.1f} MB, inputs {', '.join(INPUTS)}, output wav")


if __name__ == "__main__":
    main()
