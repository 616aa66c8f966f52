"""How good learning histories are: scores, selection by them, and the report on a data set."""
