"""The SSH library is loaded only if a device is reached by SSH."""

import subprocess
import sys


def test_a_local_session_does_not_load_the_ssh_library():
    code = "import sys, edgekit.remote.deploy; sys.exit('paramiko' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
