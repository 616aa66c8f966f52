"""A trained transformer x held-out tasks -> learning curves, statistics, report."""
