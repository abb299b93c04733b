"""Every failure a user can cause, as one family that the command line turns into one line and exit code 2."""


class VcaeError(Exception):
    """Root of the family. The message says what happened, the value seen, and what to do."""


class AudioError(VcaeError):
    """Audio that cannot be read, used or written."""


class ConfigError(VcaeError):
    """A configuration value that is unknown, missing or out of range."""


class CheckpointError(VcaeError):
    """A model file that is missing, unsafe, damaged, or made for something else."""


class DataError(VcaeError):
    """A manifest, a prepared cache or a file of units that cannot be used."""


class BitstreamError(VcaeError):
    """A compressed file that cannot be opened at all, or that is damaged where damage is refused."""
