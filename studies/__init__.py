"""Many experiments, one answer: seeds and settings as runs, their figures as one table, and pages that compare them."""
