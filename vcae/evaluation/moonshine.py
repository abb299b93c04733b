"""The recogniser Moonshine on onnxruntime: an encoder of samples, and a decoder with greedy search over tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vcae.audio.f0 import SAMPLE_RATE
from vcae.errors import DataError

START, END = 1, 2
N_HEADS, HEAD_DIM = 8, 52
# Limit on the length of a text; longer ones are repetitions.
TOKENS_PER_S = 6.5
SPACE = "\u2581"
# Below this the first layers of the encoder have no output.
MIN_SAMPLES = SAMPLE_RATE // 10


class MoonshineReader:
    """Recogniser of English speech.

    Args:
        folder: Folder with encoder_model.ort, decoder_model_merged.ort and tokenizer.bin of Moonshine base.

    Raises:
        DataError: If one of them is missing.

    Source: Jeffries et al., Moonshine: speech recognition for live transcription and voice commands (2024).
    """

    def __init__(self, folder: Path) -> None:
        names = ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise DataError(f"moonshine: {folder} lacks {', '.join(missing)}; reinstall moonshine-cpp")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        how: dict[str, Any] = {"sess_options": options, "providers": ["CPUExecutionProvider"]}
        self._encoder, self._decoder = (onnxruntime.InferenceSession(str(folder / name), **how) for name in names[:2])
        self._tokens = read_tokens((folder / names[2]).read_bytes())
        self._caches = [i.name for i in self._decoder.get_inputs() if i.name.startswith("past_key_values")]

    def __call__(self, wav: np.ndarray) -> str:
        """Return the text spoken in a signal (N,) at 16 kHz."""
        if len(wav) < MIN_SAMPLES:
            return ""
        (hidden,) = self._encoder.run(None, {"input_values": wav[None].astype(np.float32)})
        empty = np.zeros((1, N_HEADS, 0, HEAD_DIM), np.float32)
        cache = dict.fromkeys(self._caches, empty)
        tokens = [START]
        for n in range(max(int(len(wav) / SAMPLE_RATE * TOKENS_PER_S), 1)):
            feed = {
                "input_ids": np.array([tokens[-1:]], np.int64),
                "encoder_hidden_states": hidden,
                "use_cache_branch": np.array([n > 0]),
                **cache,
            }
            logits, *present = self._decoder.run(None, feed)
            for name, value in zip(self._caches, present, strict=True):
                # The keys and values of cross-attention are computed in the first step only.
                if n == 0 or "decoder" in name:
                    cache[name] = value
            tokens.append(int(logits[0, -1].argmax()))
            if tokens[-1] == END:
                break
        text = b"".join(self._tokens[token] for token in tokens[1:] if END < token < len(self._tokens))
        return text.decode("utf-8", "replace").replace(SPACE, " ").strip()


def read_tokens(data: bytes) -> list[bytes]:
    """Return the tokens of a tokenizer.bin: for each its length, in one byte or in two with seven bits each, then its bytes."""
    tokens, at = [], 0
    while at < len(data):
        n = data[at]
        at += 1
        if n >= 128:
            n = data[at] * 128 + n - 128
            at += 1
        tokens.append(data[at : at + n])
        at += n
    return tokens
