"""What the autoencoder is for, one file a use."""
