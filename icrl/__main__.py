"""`python -m icrl`: the console command `icrl`."""

import sys

from icrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
