"""Which judges there are, and which of them can be had here. All but vcae's own and its pitch are independent; the extra `eval` brings them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from vcae.errors import ConfigError, DataError
from vcae.evaluation.copies import MelDistance, Pesq, Stoi
from vcae.evaluation.naturalness import DistillMos, Dnsmos
from vcae.evaluation.recognisers import WHISPER, Moonshine, Whisper
from vcae.evaluation.scores import Judge
from vcae.evaluation.voices import OwnSpeaker, Pitch, Resemblyzer

# In the order in which their columns stand.
KINDS: tuple[type[Judge], ...] = (
    Moonshine,
    Whisper,
    DistillMos,
    Pesq,
    Stoi,
    MelDistance,
    Resemblyzer,
    Dnsmos,
    Pitch,
    OwnSpeaker,
)
NAMES = tuple(kind.name for kind in KINDS)


def choose_judges(
    copies: bool = False,
    names: Sequence[str] | None = None,
    whisper: str = WHISPER,
    checkpoint: str = "default",
    device: str = "cpu",
    aligned: bool = True,
) -> tuple[list[Judge], list[str]]:
    """Return the judges of conversions, or of copies, that can be had here, and a line for each that cannot.

    Args:
        copies: Whether copies are judged.
        names: Of `NAMES`; all that judge such rows when None.
        whisper: Model of the judge `whisper`: a name, or a folder.
        checkpoint: Whose speaker encoder is vcae's own.
        device: Where that one computes.
        aligned: Shift copies to where they fit their references best.

    Raises:
        ConfigError: If a name is of no judge.
    """
    unknown = [name for name in names or () if name not in NAMES]
    if unknown:
        raise ConfigError(f"no judge is called {unknown[0]!r}; there are {', '.join(NAMES)}")
    every: list[Judge] = [
        Moonshine(),
        Whisper(whisper),
        DistillMos(),
        Pesq(aligned),
        Stoi(aligned),
        MelDistance(aligned),
        Resemblyzer(),
        Dnsmos(),
        Pitch(),
        OwnSpeaker(checkpoint, device),
    ]
    chosen, missing = [], []
    for judge in every:
        if (names is not None and judge.name not in names) or not judge.columns(copies):
            continue
        absent = [package for package, module in judge.packages.items() if importlib.util.find_spec(module) is None]
        try:
            if absent:
                raise DataError(f"{judge.name}: {', '.join(absent)} not installed; pip install 'vcae[eval]' brings it")
            judge.identity()
            chosen.append(judge)
        except DataError as error:
            missing.append(str(error))
    return chosen, missing
