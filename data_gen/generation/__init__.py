"""The stage that generates: which learner gets which task, how a shard is made, and where."""
