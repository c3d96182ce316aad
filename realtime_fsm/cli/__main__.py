"""The command line as ``python -m realtime_fsm.cli``."""

import sys

from realtime_fsm.cli import main

sys.exit(main())
