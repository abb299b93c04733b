"""The autoencoder and its parts."""
