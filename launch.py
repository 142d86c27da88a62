"""python launch.py --config=experiments/resnet50.py: one experiment, one job. See --help."""

import sys

from cnnjax.allocator import restart_with_huge_pages
from cnnjax.command_line import main

if __name__ == "__main__":
    restart_with_huge_pages()
    sys.exit(main(sys.argv))
