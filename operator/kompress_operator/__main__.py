"""`python -m kompress_operator`: the operator."""

import sys

from kompress_operator.main import main

if __name__ == "__main__":
    sys.exit(main())
