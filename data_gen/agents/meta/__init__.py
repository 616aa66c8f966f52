"""Meta-learners: agents that were trained on many tasks to adapt to a new one quickly, one file an algorithm."""
