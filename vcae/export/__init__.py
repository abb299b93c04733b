"""The models of a checkpoint as ONNX graphs, for `vcae.light` and for a browser."""
