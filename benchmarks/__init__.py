"""Benchmarks of this project: one command per figure."""
