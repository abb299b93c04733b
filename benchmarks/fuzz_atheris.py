"""Guided fuzzing: `python benchmarks/fuzz_atheris.py CORPUS [--codec] [libFuzzer's options, such as -max_total_time=600]`.

Needs the extra `fuzz`. Without `--codec` the container alone; with it the whole decoder. Half of what is tried has its checksums put
right. CORPUS is a folder, which is filled with whole files first if it is empty. A finding ends the run, and is left
in the current folder as libFuzzer does it.
"""

import io
import random
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
WITH_CODEC = "--codec" in sys.argv

with atheris.instrument_imports(include=["vcae.codec"]):
    from vcae.codec import bitstream
    from vcae.codec.bitstream import Block, Header, Lost, Reader

from tests.mutations import edit_header, edit_payloads, put_together  # noqa: E402
from vcae.errors import BitstreamError  # noqa: E402

if WITH_CODEC:
    import torch

    torch.set_num_threads(1)
    with atheris.instrument_imports(include=["vcae.codec", "vcae.codec.codec", "vcae.codec.playback"]):
        from vcae.codec.codec import Codec
    CODEC = Codec(device="cpu")


def read(data: bytes) -> None:
    """Read a container: all blocks are accounted for, or it is refused."""
    try:
        reader = Reader(io.BytesIO(data))
    except BitstreamError:
        return
    n = 0
    for item in reader:
        assert item.index == n, (item, n)
        n += item.count if isinstance(item, Lost) else 1
    assert n == reader.header.n_blocks, (n, reader.header)


def decode(data: bytes) -> None:
    """Decode, or refuse."""
    try:
        CODEC.decompress(data)
    except BitstreamError:
        return


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change a file as libFuzzer does, or one part of it, and then put the checksums right."""
    rng = random.Random(seed)
    try:
        reader = Reader(io.BytesIO(data))
        payloads = [item.payload for item in reader if isinstance(item, Block)]
    except BitstreamError:
        return atheris.Mutate(data, max_size)
    if not payloads or rng.random() < 0.5:
        return atheris.Mutate(data, max_size)
    at, most = rng.randrange(len(payloads)), reader.header.max_block_bytes
    if rng.random() < 0.2:
        whole = put_together(reader.header, payloads)
        try:
            return rng.choice([edit_header, edit_payloads])(rng, whole, whole)[:max_size]
        except BitstreamError:
            return whole
    payloads[at] = atheris.Mutate(payloads[at], min(most, max_size))[:most]
    return put_together(reader.header, payloads)[:max_size]


def fill(corpus: Path) -> None:
    """Write whole files to begin with."""
    corpus.mkdir(parents=True, exist_ok=True)
    if any(corpus.iterdir()):
        return
    rng = random.Random(0)
    if WITH_CODEC:
        from benchmarks.fuzz_codec import make_files

        files = make_files(CODEC, 1.2)
    else:
        headers = [Header(bytes(4), n, block_steps=16, speaker=bytes(k)) for n, k in ((5000, 0), (30000, 5), (90000, 32))]
        files = [bitstream.write(h, [rng.randbytes(rng.randint(0, 150)) for _ in range(h.n_blocks)]) for h in headers]
    for n, data in enumerate(files):
        (corpus / f"whole-{n}.vcz").write_bytes(data)


def main() -> None:
    """Fill the corpus and fuzz."""
    arguments = [argument for argument in sys.argv if argument != "--codec"]
    folders = [argument for argument in arguments[1:] if not argument.startswith("-")]
    if len(folders) != 1:
        sys.exit(__doc__)
    fill(Path(folders[0]))
    atheris.Setup(arguments, decode if WITH_CODEC else read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
