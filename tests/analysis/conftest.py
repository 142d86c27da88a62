"""Puts the helpers beside these tests on the import path; the golden script imports them too."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
