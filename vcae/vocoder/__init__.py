"""From mel back to sound."""
