"""Training: prepared data, perturbation, losses, objectives and the trainer. Nothing in the library imports this."""
