"""The list of judges, and the choice of those installed. All except vcae's own and its pitch are independent; the extra `eval` installs them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from vcae.errors import ConfigError, DataError
from vcae.evaluation.copies import MelDistance, Pesq, Stoi
from vcae.evaluation.naturalness import DistillMos, Dnsmos
from vcae.evaluation.recognisers import WHISPER, Moonshine, Whisper
from vcae.evaluation.scores import Judge
from vcae.evaluation.voices import OwnSpeaker, Pitch, Resemblyzer

# In the order of their columns.
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
    """Return the available judges of conversions, or of copies, and a message for each that is not available.

    Args:
        copies: Judge copies instead of conversions.
        names: Names from `NAMES`; all judges of such rows when None.
        whisper: Model of the judge `whisper`: a name, or a folder.
        checkpoint: Checkpoint of the judge `own`.
        device: Device of the judge `own`.
        aligned: Shift copies by the lag of greatest correlation with their references.

    Raises:
        ConfigError: If a name is not that of a judge.
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
