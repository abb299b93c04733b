"""Voice conversion without torch: the graphs of `vcae export onnx`, run by onnxruntime, with NumPy for the rest."""

from vcae.light.conversion import convert
from vcae.light.graphs import Graphs
from vcae.light.voice import Voice, measure_voice

__all__ = ["Graphs", "Voice", "convert", "measure_voice"]
