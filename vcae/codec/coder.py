"""The range coder of constriction, with the shortest possible last bytes."""

from __future__ import annotations

import numpy as np

from vcae.errors import BitstreamError

WORD = 32
STATE = 64


class Encoder:
    """Entropy encoder of symbols with given probabilities."""

    def __init__(self) -> None:
        import constriction

        self._coder = constriction.stream.queue.RangeEncoder()
        self._family = constriction.stream.model.Categorical(perfect=False)

    def encode(self, symbols: np.ndarray, probabilities: np.ndarray) -> None:
        """Encode symbols (N,) with probabilities (N, K): integers, whose rows may have different sums."""
        if len(symbols):
            self._coder.encode(symbols.astype(np.int32), self._family, probabilities)

    def finish(self) -> bytes:
        """Return the shortest bytes that, followed by zeros, decode to the encoded symbols."""
        words = self._coder.get_compressed()
        if not len(words):
            return b""
        position, (lower, width) = self._coder.pos()
        # The bytes, read as one number, may be anything in the coder's present interval. Its words may still need a carry.
        n_words = max(position + STATE // WORD, len(words))
        sealed = int.from_bytes(words.astype(">u4").tobytes(), "big") << (WORD * (n_words - len(words)))
        slack = WORD * (n_words - position) - STATE
        lower, width = lower << slack, width << slack
        span = STATE + slack
        low = ((sealed - lower) >> span << span) + lower
        n_bytes = n_words * WORD // 8
        for kept in range(n_bytes + 1):
            unit = 8 * (n_bytes - kept)
            value = -(-low >> unit) << unit
            if value < low + width:
                return int(value >> unit).to_bytes(kept, "big")
        return bytes(words.astype(">u4").tobytes())


class Decoder:
    """Entropy decoder of the bytes that `Encoder` writes.

    Args:
        payload: From `Encoder.finish`; any other bytes decode to some symbols or raise.
    """

    def __init__(self, payload: bytes) -> None:
        import constriction

        padded = payload + bytes(-len(payload) % (WORD // 8))
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, dtype=">u4").astype(np.uint32))
        self._family = constriction.stream.model.Categorical(perfect=False)

    def decode(self, probabilities: np.ndarray) -> np.ndarray:
        """Decode symbols (N,) with probabilities (N, K).

        Raises:
            BitstreamError: If an encoder cannot have written these bytes.
        """
        try:
            symbols: np.ndarray = self._coder.decode(self._family, probabilities)
        except (AssertionError, ValueError) as error:
            raise BitstreamError(f"a block is damaged ({error}); get a fresh copy of the file") from error
        return symbols
