"""`python -m spillway` is the command line."""

import sys

from spillway.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
