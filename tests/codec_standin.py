"""A codec without networks, for what lies around the codec: 4,000 samples a second of 8 bits, zipped, in the container's blocks."""

import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from vcae.audio.io import resample
from vcae.codec.base import Damage
from vcae.codec.bitstream import Header, Lost, Reader, write
from vcae.errors import AudioError

SHA256 = "0123abcd" * 8
EVERY = 4


class Stream:
    def __init__(self, reader, voice):
        self.header, self._reader, self._voice, self.damage = reader.header, reader, voice, []

    def __iter__(self):
        for item in self._reader:
            if isinstance(item, Lost):
                start, stop = self.header.span(item.index, item.count)
                self.damage.append(Damage(start, stop, item.offset, item.reason))
                if item.index + item.count == self.header.n_blocks:
                    return
                yield np.zeros(item.count * self.header.block_samples, np.float32)
            else:
                wav = np.frombuffer(zlib.decompress(item.payload), np.int8).astype(np.float32) / 127
                start = item.index * self.header.block_samples
                yield np.repeat(wav if self._voice is None else wav * self._voice, EVERY)[: self.header.n_samples - start]


class Codec:
    sample_rate = 16000

    def __init__(self, name="codec", device="auto"):
        self.file = SimpleNamespace(path=Path("standin.safetensors"), sha256=SHA256)
        self.model = SimpleNamespace(device="cpu")

    def compress(self, source, kbps=1.5, progress=None):
        wav = resample(np.concatenate(list(source.blocks())), source.sample_rate, 16000)
        if len(wav) < 8000:
            raise AudioError(f"{source.name} is too short")
        header = Header(bytes.fromhex(SHA256[:8]), len(wav), round(kbps * 10), 16, speaker=b"me")
        wav = np.round(np.clip(wav, -1, 1) * 127).astype(np.int8)[::EVERY]
        n = header.block_samples // EVERY
        return write(header, [zlib.compress(wav[k * n : (k + 1) * n].tobytes()) for k in range(header.n_blocks)])

    def stream(self, opened, voice=None, strict=False, name=None, seed=0, progress=None):
        return Stream(Reader(opened, name, strict), voice)
