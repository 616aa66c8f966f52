"""Environments of other libraries: any Gymnasium environment, Meta-World."""
