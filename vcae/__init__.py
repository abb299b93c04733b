"""vcae: voice conversion and friends from one small spectrogram autoencoder."""

__version__ = "0.1.0"
