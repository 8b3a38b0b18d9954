"""``python -m optical_scale`` is ``optical-scale``."""

import sys

from optical_scale.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
