"""Triton decides once, when it is first imported, whether kernels are compiled or interpreted on the CPU.

``tests/unit/transport/test_triton.py`` runs this folder in a process of its own with TRITON_INTERPRET=1; without that,
and without Triton, there is nothing to collect here.
"""

import importlib.util

from optical_scale.transport.triton.support import interpreted

collect_ignore_glob = [] if interpreted() and importlib.util.find_spec("triton") else ["test_*.py"]
