"""How `launch.py` ends, for whoever started it: a shell, a scheduler, a sweep.

Imports nothing, because `launch.py` needs one of them before anything else.
"""

DONE = 0
FAILED = 1
USER_ERROR = 2  # The input is wrong; the same command would fail again.
PREEMPTED = 75  # Stopped and saved: the same command goes on. EX_TEMPFAIL of sysexits.h.
