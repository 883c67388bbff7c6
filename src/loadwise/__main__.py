"""``python -m loadwise``: the same as the command ``loadwise``."""

import sys

from loadwise.cli import main

if __name__ == "__main__":
    sys.exit(main())
