"""The long part of the fault harness: `make faults`, or `python -m tests.faults.harness` from the repository's root.

Each kind of fault is a module or a package, listed in `__main__`. They share

- `watched`: a command in a child process that is watched, with a fault before one of its file operations;
- `promises`: what every command keeps, whatever happens; `leftovers`: what it may have left behind;
- `stages`, `tiny_runs`, `uninterrupted`: what commands start from, and what they make without a fault;
- `startup`: code in processes that are not forked;
- `hostile`, `payloads`, `hdf5_links`: what an attacker would put into a file;
- `strange_values`: what a user might type;
- `outcomes`: one line per case, and the table.
"""
