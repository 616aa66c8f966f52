"""Learning histories on disk: shards, their columns, `info.json`, the data folder, and its card."""
