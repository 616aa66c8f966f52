"""The long part of the fault harness: `make faults`, or `python -m tests.faults.harness` from the repository's root."""
