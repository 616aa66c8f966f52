"""Learners that keep tables, one file each."""
