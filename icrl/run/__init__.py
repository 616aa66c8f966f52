"""One run: its folder, records, checkpoints, fingerprints, trackers and command line, and the purposes of its seeds."""
