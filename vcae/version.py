"""The version, which a file that was made carries too."""

__version__ = "0.1.0"
