"""Runs `python -m experiments.catalogue`."""

import sys

from experiments.catalogue import main

sys.exit(main(sys.argv[1:]))
