"""Deep learners: one network per learner, all of them stacked; one file per algorithm."""

import os

# Otherwise MKL picks its code path by the number of matrices. A learner's last bits, and so in time its history, would
# then depend on its neighbours. MKL reads this variable at its first use; the setting costs no time (measured).
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
