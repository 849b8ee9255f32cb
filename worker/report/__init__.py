"""The report family: HTML pages, workbooks and PDFs about datasets, and the daily report about the service."""

import atexit
import os
import shutil
import tempfile

# Before matplotlib is imported: its font cache defaults to a home folder that is read-only in a worker image.
if "MPLCONFIGDIR" not in os.environ:
    os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="celeriac-matplotlib-")
    atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)
