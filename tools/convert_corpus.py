#!/usr/bin/env python
"""`optical-scale convert` from a checkout: python tools/convert_corpus.py --help."""

import sys

from optical_scale.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
