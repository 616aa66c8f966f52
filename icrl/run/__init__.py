"""A run on disk and on the screen: its folder, fingerprints, checkpoints, trackers, and the seeds' purposes."""
