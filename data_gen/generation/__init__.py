"""The generate stage: checks of the sources, the making of one shard, and the executors that make all shards."""
