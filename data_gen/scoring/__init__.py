"""The quality of learning histories: scores, selection by scores, and the report on a data set."""
