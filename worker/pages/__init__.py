"""Documents for people, such as reports and model cards, and the page on which each is shown: one style for all."""

import atexit
import os
import shutil
import tempfile

# Before matplotlib is imported: its font cache defaults to a home folder that is read-only in a worker image.
if "MPLCONFIGDIR" not in os.environ:
    os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="celeriac-matplotlib-")
    atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)
