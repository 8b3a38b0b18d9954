#!/usr/bin/env python
"""`optical-scale export` from a checkout: python tools/export_checkpoint.py runs/x --output exported/x."""

import sys

from optical_scale.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
