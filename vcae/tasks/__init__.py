"""Uses of the models, one file each."""
