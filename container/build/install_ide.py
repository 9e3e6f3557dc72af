"""Install the IDE at build time: ``install_ide.py DATA_DIR``, run in a folder that holds ``calliope_agent``."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from calliope_agent.launcher import ide_install

print(ide_install.install(Path(sys.argv[1]), os.environ, print).root)
