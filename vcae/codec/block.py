"""A block of the bitstream: steps of codes, F0, phase and latent, to bytes and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vcae.codec.coder import Decoder, Encoder
from vcae.codec.integer import (
    FRACTION_BITS,
    FRACTIONS,
    HALF,
    LOWEST_OCTAVE,
    NUMBER_BITS,
    ONE,
    SCALES,
    SCALES_AN_OCTAVE,
    WEIGHT_BITS,
    IntegerNetwork,
    Logistic,
    Softmax,
    shift_down,
)
from vcae.codec.pitch import MAX_MOVE, N_VOICINGS, REACH
from vcae.codec.prior import CODE_CONTEXT, QUALITIES, table_sizes

# Fractional bits of the inverse steps.
INVERSE_BITS = 16
# The phase of the pulses is sent once per this many steps, in this many parts of a cycle.
PHASE_STEPS = 4
PHASES = 16
MAX_QUALITY = 255


@dataclass(frozen=True)
class Block:
    """Integers that are coded for S steps.

    Attributes:
        codes: (2, S), codes of the base layer.
        voicing: (S,), from 0 to 3, see `vcae.codec.pitch`.
        place: (S,), F0 on its grid.
        phase: (ceil(S / 4),), phase of the pulses in sixteenths of a cycle; 0 in unvoiced parts and in the base layer.
        latent: (D, S), latent in units of the quantiser's step; zeros in the base layer.
    """

    codes: np.ndarray
    voicing: np.ndarray
    place: np.ndarray
    phase: np.ndarray
    latent: np.ndarray

    @property
    def n_steps(self) -> int:
        """Steps."""
        return int(self.voicing.shape[0])


class BlockCoder:
    """Encoder and decoder of blocks; each block can be decoded without the others.

    Args:
        integers: The priors, from `vcae.codec.files`.
        codebook_size: Number of codes in a codebook of the base layer.
        latent_dim: Channels of the enhancement layer's latent.
    """

    def __init__(self, integers: Mapping[str, Tensor], codebook_size: int, latent_dim: int) -> None:
        sizes = table_sizes(codebook_size)

        def network(name: str) -> IntegerNetwork:
            own = {key.removeprefix(name + "."): value for key, value in integers.items() if key.startswith(name + ".")}
            return IntegerNetwork(own, sizes[name])

        self._first, self._second, self._voicing, self._move, self._latent = map(
            network, ("first", "second", "voicing", "move", "latent")
        )
        self._softmax, self._logistic = Softmax(integers["exponentials"]), Logistic(integers["logistic"])
        self._phase = integers["phase"].numpy().astype(np.float64)
        # (256, D) each: a step in units of 2**-10, its inverse in units of 2**-16, its base-2 logarithm in units of 2**-12.
        self.steps, self._inverse, self._log2_step = (
            integers[name].numpy().astype(np.float64) for name in ("steps", "inverse_steps", "log2_steps")
        )
        self._none, self._dim = codebook_size, latent_dim

    def step_size(self, quality: int) -> np.ndarray:
        """Return the quantiser's step sizes (D, 1) in the latent's own units."""
        return np.asarray(self.steps[quality][:, None] / (1 << NUMBER_BITS))

    def encode(self, block: Block, quality: int) -> tuple[bytes, Block]:
        """Encode a block.

        Args:
            block: The values to code.
            quality: 0 (base layer only) to 255.

        Returns:
            The bytes, and the block they decode to: a latent far from its prediction is clipped to the window, and a jump of F0 takes several
            steps.
        """
        coder = Encoder()
        codes = block.codes.astype(np.int64)
        known = _code_context(codes, self._none)
        rows = np.stack(
            [
                self._softmax(self._first(known)),
                self._softmax(self._second(np.concatenate([known, codes[0][:, None]], axis=1))),
            ],
            axis=1,
        )
        coder.encode(codes.T.reshape(-1), rows.reshape(-1, self._none))
        voicing = block.voicing.astype(np.int64)
        moves, place = reachable(voicing, block.place)
        seen, moving = _pitch_context(codes, voicing, place, moves, self._none)
        likely, going = self._softmax(self._voicing(seen)), self._softmax(self._move(moving))
        for step, voiced in enumerate(voicing):
            coder.encode(voicing[step : step + 1], likely[step : step + 1])
            if voiced:
                coder.encode(moves[step : step + 1] + MAX_MOVE, going[step : step + 1])
        phase, latent = np.zeros_like(block.phase), np.zeros_like(block.latent)
        if quality:
            phase = self._encode_phase(coder, block.phase, voicing)
            latent = self._encode_latent(coder, codes, voicing, block.latent, quality)
        return coder.finish(), Block(codes, voicing, place, phase, latent)

    def _encode_phase(self, coder: Encoder, phase: np.ndarray, voicing: np.ndarray) -> np.ndarray:
        kept, sent = phase_needed(voicing), np.zeros_like(phase)
        last = turn = 0
        for i in np.flatnonzero(kept):
            change = int(phase[i] - last) % PHASES
            coder.encode(np.array([change]), self._phase[turn][None])
            sent[i] = last = int(phase[i])
            turn = 1 + change
        return sent

    def _encode_latent(
        self, coder: Encoder, codes: np.ndarray, voicing: np.ndarray, wanted: np.ndarray, quality: int
    ) -> np.ndarray:
        known = self._latent.known(_latent_symbols(codes, voicing, self._none))
        latent = wanted.astype(np.int64)
        # A clipped value changes the predictions after it, so this is repeated until nothing is clipped; each pass settles at least one
        # more step.
        while True:
            whole, rows = self._guess(known, self._numbers(_past(latent), quality), quality)
            held = np.clip(latent.T, whole - HALF, whole + HALF - 1).T
            if np.array_equal(held, latent):
                break
            first = int(np.flatnonzero((held != latent).any(axis=0))[0])
            latent = np.concatenate([latent[:, :first], held[:, first : first + 1], wanted[:, first + 1 :]], axis=1)
        coder.encode((latent.T - whole + HALF).reshape(-1), rows)
        return latent

    def _numbers(self, past: np.ndarray, quality: int) -> np.ndarray:
        """Return the prior's numeric inputs (N, 2 * D + 2), in units of 2**-10, for the two preceding latents (N, 2, D)."""
        share = np.round((quality - 1) * ((1 << NUMBER_BITS) / (MAX_QUALITY - 1)))
        powers = np.broadcast_to([share, shift_down(share * share, NUMBER_BITS)], (len(past), QUALITIES))
        return np.concatenate([(past * self.steps[quality]).reshape(len(past), -1), powers], axis=1)

    def _guess(self, known: np.ndarray, numbers: np.ndarray, quality: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the integer part of each predicted mean (N, D), in steps, and the probabilities (N * D, 2 * HALF) around it."""
        output = self._latent.after(known, numbers)
        mean = shift_down(output[:, : self._dim] * self._inverse[quality], WEIGHT_BITS + INVERSE_BITS - FRACTION_BITS)
        # Far beyond the range of latents; keeps integers small for any input bytes.
        mean = np.clip(mean, -(1 << 13), 1 << 13)
        whole = np.floor(mean / FRACTIONS)
        log2_scale = output[:, self._dim :] - self._log2_step[quality] - LOWEST_OCTAVE * ONE
        scale = np.clip(np.floor(log2_scale * (SCALES_AN_OCTAVE / ONE) + 0.5), 0, SCALES - 1)
        fraction = (mean - whole * FRACTIONS).astype(np.int64)
        rows = self._logistic.rows(fraction.reshape(-1), scale.astype(np.int64).reshape(-1))
        return whole.astype(np.int64), rows

    def decode(self, payloads: Sequence[bytes], n_steps: Sequence[int], quality: int, base_only: bool = False) -> list[Block]:
        """Decode blocks, several at once for speed.

        Args:
            payloads: From `encode`.
            n_steps: Steps of each block.
            quality: Quality with which they were encoded.
            base_only: Do not decode the enhancement layer, which comes last.

        Raises:
            BitstreamError: If a payload cannot have been written by an encoder.
        """
        n, most = len(payloads), max(n_steps, default=0)
        coders = [Decoder(payload) for payload in payloads]
        alive = np.array(n_steps)
        codes = np.full((n, 2, most + CODE_CONTEXT), self._none, dtype=np.int64)
        for step in range(most):
            on = np.flatnonzero(alive > step)
            past = codes[on, :, step : step + CODE_CONTEXT]
            known = past[:, :, ::-1].transpose(0, 2, 1).reshape(len(on), -1)
            first = _read(coders, on, self._softmax(self._first(known)))
            second = _read(coders, on, self._softmax(self._second(np.concatenate([known, first[:, None]], axis=1))))
            codes[on, :, step + CODE_CONTEXT] = np.stack([first, second], axis=1)
        codes = codes[:, :, CODE_CONTEXT:]
        voicing, place = self._decode_pitch(coders, codes, alive)
        phase = np.zeros((n, -(-most // PHASE_STEPS)), dtype=np.int64)
        latent = np.zeros((n, self._dim, most), dtype=np.int64)
        if quality and not base_only:
            for i, coder in enumerate(coders):
                self._decode_phase(coder, phase[i], voicing[i, : n_steps[i]])
            latent = self._decode_latent(coders, codes, voicing, alive, quality)
        return [
            Block(codes[i, :, :k], voicing[i, :k], place[i, :k], phase[i, : -(-k // PHASE_STEPS)], latent[i, :, :k])
            for i, k in enumerate(n_steps)
        ]

    def _decode_pitch(self, coders: list[Decoder], codes: np.ndarray, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n, most = len(coders), codes.shape[2]
        # Two empty steps of context come first.
        voicing = np.full((n, most + 2), N_VOICINGS, dtype=np.int64)
        moves = np.zeros((n, most + 2), dtype=np.int64)
        place = np.zeros((n, most + 1), dtype=np.int64)
        ahead = _ahead(codes[:, 0], self._none)
        for step in range(most):
            on = np.flatnonzero(alive > step)
            here, before, before_that = codes[on, :, step], voicing[on, step + 1], voicing[on, step]
            seen = np.stack([here[:, 0], here[:, 1], ahead[on, step], before, before_that], axis=1)
            now = _read(coders, on, self._softmax(self._voicing(seen)))
            voicing[on, step + 2] = now
            last = place[on, step]
            place[on, step + 1] = last
            voiced = np.flatnonzero(now > 0)
            if len(voiced):
                who = on[voiced]
                moving = np.stack(
                    [
                        here[:, 0],
                        ahead[on, step],
                        now,
                        before,
                        moves[on, step + 1] + MAX_MOVE,
                        moves[on, step] + MAX_MOVE,
                        last + REACH,
                    ],
                    axis=1,
                )[voiced]
                moved = _read(coders, who, self._softmax(self._move(moving))) - MAX_MOVE
                moves[who, step + 2] = moved
                place[who, step + 1] = np.clip(last[voiced] + moved, -REACH, REACH)
        return voicing[:, 2:], place[:, 1:]

    def _decode_phase(self, coder: Decoder, phase: np.ndarray, voicing: np.ndarray) -> None:
        last = turn = 0
        for i in np.flatnonzero(phase_needed(voicing)):
            change = int(coder.decode(self._phase[turn][None])[0])
            phase[i] = last = (last + change) % PHASES
            turn = 1 + change

    def _decode_latent(
        self, coders: list[Decoder], codes: np.ndarray, voicing: np.ndarray, alive: np.ndarray, quality: int
    ) -> np.ndarray:
        n, _, most = codes.shape
        ahead = _ahead(codes[:, 0], self._none)
        latent = np.zeros((n, self._dim, most + 2), dtype=np.int64)
        for step in range(most):
            on = np.flatnonzero(alive > step)
            symbols = np.stack([codes[on, 0, step], codes[on, 1, step], ahead[on, step], voicing[on, step]], axis=1)
            past = latent[on, :, step : step + 2][:, :, ::-1].transpose(0, 2, 1)
            whole, rows = self._guess(self._latent.known(symbols), self._numbers(past, quality), quality)
            each = rows.reshape(len(on), self._dim, -1)
            for k, who in enumerate(on):
                latent[who, :, step + 2] = coders[who].decode(each[k]) + whole[k] - HALF
        return latent[:, :, 2:]


def _read(coders: list[Decoder], on: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.array([coders[who].decode(rows[k : k + 1])[0] for k, who in enumerate(on)], dtype=np.int64)


def _code_context(codes: np.ndarray, none: int) -> np.ndarray:
    n = codes.shape[1]
    padded = np.pad(codes, ((0, 0), (CODE_CONTEXT, 0)), constant_values=none)
    return np.stack(
        [padded[s, CODE_CONTEXT - k : CODE_CONTEXT - k + n] for k in range(1, CODE_CONTEXT + 1) for s in (0, 1)], axis=1
    )


def _ahead(codes: np.ndarray, none: int) -> np.ndarray:
    return np.concatenate([codes[..., 1:], np.full_like(codes[..., :1], none)], axis=-1)


def reachable(voicing: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the moves (S,) of F0 that are coded for a voicing (S,) and places (S,), and the places (S,) after them."""
    moves, reached = np.zeros(len(voicing), dtype=np.int64), np.zeros(len(voicing), dtype=np.int64)
    last = 0
    for step, voiced in enumerate(voicing):
        if voiced:
            moves[step] = np.clip(int(np.clip(place[step], -REACH, REACH)) - last, -MAX_MOVE, MAX_MOVE)
            last += int(moves[step])
        reached[step] = last
    return moves, reached


def _pitch_context(
    codes: np.ndarray, voicing: np.ndarray, place: np.ndarray, moves: np.ndarray, none: int
) -> tuple[np.ndarray, np.ndarray]:
    n, ahead = len(voicing), _ahead(codes[0], none)
    voiced = np.pad(voicing, (2, 0), constant_values=N_VOICINGS)
    moved = np.pad(moves, (2, 0)) + MAX_MOVE
    last = np.pad(place, (1, 0))[:n] + REACH
    seen = np.stack([codes[0], codes[1], ahead, voiced[1 : n + 1], voiced[:n]], axis=1)
    return seen, np.stack([codes[0], ahead, voicing, voiced[1 : n + 1], moved[1 : n + 1], moved[:n], last], axis=1)


def count_changes(counts: np.ndarray, phase: np.ndarray, voicing: np.ndarray) -> None:
    """Count pairs of successive phase changes in one block: adds to `counts` (PHASES + 1, PHASES)."""
    last = turn = 0
    for i in np.flatnonzero(phase_needed(voicing)):
        change = int(phase[i] - last) % PHASES
        counts[turn, change] += 1
        last, turn = int(phase[i]), 1 + change


def phase_needed(voicing: np.ndarray) -> np.ndarray:
    """Return where phase is coded (ceil(S / 4),): where one of its steps, or the step before them, is voiced."""
    n = -(-len(voicing) // PHASE_STEPS)
    padded = np.pad(voicing > 0, (1, n * PHASE_STEPS - len(voicing)))
    beside = [padded[k : k + n * PHASE_STEPS : PHASE_STEPS] for k in range(PHASE_STEPS + 1)]
    return np.asarray(np.stack(beside).any(axis=0))


def _latent_symbols(codes: np.ndarray, voicing: np.ndarray, none: int) -> np.ndarray:
    return np.stack([codes[0], codes[1], _ahead(codes[0], none), voicing], axis=1)


def _past(latent: np.ndarray) -> np.ndarray:
    n = latent.shape[1]
    padded = np.pad(latent, ((0, 0), (2, 0)))
    return np.stack([padded[:, 1 : n + 1].T, padded[:, :n].T], axis=1)
