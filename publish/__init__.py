"""Data sets and models on the hub, pushed and pulled."""
