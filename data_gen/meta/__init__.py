"""Meta-learners: agents that are trained on many tasks to adapt to a new one."""
