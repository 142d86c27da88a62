"""A machine's devices, as files in /dev."""

import fnmatch
from pathlib import PurePath


class Dev:
    """Stands for pathlib.Path in a machine with these files in /dev."""

    def __init__(self, *names):
        self.names = names

    def __call__(self, path):
        return Dev(*[name for name in self.names if path in ("/dev", f"/dev/{name}")])

    def exists(self):
        return bool(self.names)

    def glob(self, pattern):
        return [PurePath("/dev", name) for name in self.names if fnmatch.fnmatch(name, pattern)]
