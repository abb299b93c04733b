"""The speech codec: networks, priors, entropy coder, bitstream, and sound to bytes and back."""
