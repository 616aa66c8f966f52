"""Deep learners: one network a learner, all of them stacked, one file an algorithm."""

import os

# The matrix library otherwise picks its code path by how many matrices there are, and a learner's last bits, and so in
# time its life, would depend on its neighbours. It reads this when it is first used; there is no cost (measured).
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
