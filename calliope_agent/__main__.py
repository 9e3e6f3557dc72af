"""``python -m calliope_agent`` is the ``calliope-agent`` command."""

import sys

from calliope_agent.cli import main

sys.exit(main())
