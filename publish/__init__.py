"""Pushes data sets and models to the hub, and pulls them."""
