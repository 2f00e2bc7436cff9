"""`python -m pipelines`: the command line in a checkout."""

import sys

from .command_line import main

sys.exit(main())
