"""Bandit algorithms, one per file."""
