"""Learners that keep tables, one per file."""
