"""Start of an installed app: ``python3 start.py HOME COMMAND...``, with the code of its release.

This module is understood by Python 3.6 and newer, and finds the Python that the app needs.
"""

import json
import os
import shutil
import subprocess
import sys
from typing import Tuple

_RETRIED = "EDGEKIT_APP_PYTHON"
_FOLDERS = ("/usr/local/bin", "/usr/bin")


def main() -> int:
    """Run a command of the app, and return its exit status."""
    # The link "current" may be switched at any time: this process stays with one release.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    home = sys.argv[1]
    name = os.path.basename(home)
    try:
        with open(os.path.join(root, "package.json"), "rb") as file:
            statement = dict(json.loads(file.read().decode()))
        wanted = (int(statement["python"][0]), int(statement["python"][1]))
    except Exception as error:  # noqa: BLE001 - whatever is wrong, the file is damaged
        return _refuse(name, f"package.json: {error}")
    if sys.version_info[:2] != wanted:
        return _restart(name, wanted)
    sys.path.insert(0, root)
    try:
        from edgekit_agent.apps.commands import run_command
    except Exception as error:  # noqa: BLE001 - whatever is wrong, a file is damaged
        return _refuse(name, str(error))
    return run_command(home, os.path.basename(root), sys.argv[2:])


def _refuse(name: str, what: str) -> int:
    sys.stderr.write(f"{name}: damaged ({what}); run the package file again: that repairs it\n")
    return 3


def _restart(name: str, wanted: Tuple[int, int]) -> int:
    """Run the same command with the Python that the wheels of the app are for."""
    version = "{}.{}".format(*wanted)
    path = os.pathsep.join((os.environ.get("PATH", ""), *_FOLDERS))
    python = shutil.which(f"python{version}", path=path)
    if python is not None and os.environ.get(_RETRIED) != version and _is_version(python, version):
        os.environ[_RETRIED] = version
        os.execv(python, [python, "-I", "-B", "-X", "utf8", *sys.argv])
    sys.stderr.write(f"{name}: needs Python {version}, which is not on this device any more\n")
    return 4


def _is_version(python: str, version: str) -> bool:
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    try:
        answer = subprocess.check_output([python, "-I", "-c", code], timeout=20)
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.decode().strip() == version


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
