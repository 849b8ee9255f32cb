"""The report family: pages, workbooks and PDFs, about datasets and about the service's own day."""

import atexit
import os
import shutil
import tempfile

# Before matplotlib is imported: it keeps its font cache in a home that a worker image cannot write to.
if "MPLCONFIGDIR" not in os.environ:
    os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="celeriac-matplotlib-")
    atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)
