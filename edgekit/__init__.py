"""edgekit: compression of trained models for small devices, with proof of the result."""

import os

from edgekit.version import __version__ as __version__

# onnxruntime's wheels for Linux report to their maker and leave an identifier in the user's cache,
# unless told not to before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
