"""python launch.py --config=experiments/resnet50.py: one experiment, one job. See --help."""

import sys

from cnnjax import garbage
from cnnjax.interrupts import end, leave_when_asked
from cnnjax.open_files import raise_limit
from cnnjax.streams import never_fail

if __name__ == "__main__":
    garbage.look_seldom()
    never_fail()  # Whoever reads what is printed may leave before the run ends.
    raise_limit()  # Of open files.
    with leave_when_asked():  # Before the imports, which take a while.
        from cnnjax.allocator import restart_with_huge_pages

        restart_with_huge_pages()
        from cnnjax.command_line import main

        code = main(sys.argv)
    end(code)
