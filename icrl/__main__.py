"""`python -m icrl`: the console command `icrl`."""

from icrl.cli import command

if __name__ == "__main__":
    command()
