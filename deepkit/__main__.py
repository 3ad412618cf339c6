"""`python -m deepkit` is the command `deepkit`."""

import sys

from .cli import main

sys.exit(main())
