"""MuJoCo robots with varied goals and dynamics."""
