"""`python -m palp_lab`, the same as `palp-lab`."""

import sys

from palp_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
