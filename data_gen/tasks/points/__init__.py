"""A point that moves in the plane: dense and sparse navigation, the water maze."""
