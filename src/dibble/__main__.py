"""`python -m dibble`."""

import sys

from dibble.cli.main import main

sys.exit(main())
