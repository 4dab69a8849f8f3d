"""The command line: ``python -m gmmlib.data status``, or ``fetch``."""

import sys

from gmmlib.data.datasets import main

if __name__ == "__main__":
    sys.exit(main())
