"""Objectives: what the transformer learns from its contexts, one file per objective. `base` has the protocol."""
