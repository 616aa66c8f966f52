"""Deep learners: one network a learner, all of them stacked, one file an algorithm."""
