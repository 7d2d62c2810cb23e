"""Entry point of a package file: refuses a Python that is too old, and starts the installer.

This module alone must be understood by Python 3.6, so that an old Python is refused in one line.
"""

import json
import os
import sys
import zipfile
from typing import Any, Dict

OLDEST = (3, 9)
# In bytes; a larger statement is refused by the installer as well.
MOST_BYTES = 4 << 20


def main() -> int:
    """Install the package that this module lies in, and return the exit status."""
    file = os.path.dirname(os.path.abspath(__file__))
    name = os.path.basename(file)
    try:
        statement = read_statement(file)
        wanted = tuple(int(number) for number in statement["python"])
        app = str(statement["name"])[:40]
    except Exception as error:  # noqa: BLE001 - whatever is wrong, the file is damaged
        return refuse(f"{name}: not a complete package file ({error}); copy it again")
    if sys.version_info < OLDEST or sys.version_info[:2] != wanted:
        version = ".".join(map(str, wanted))
        found = ".".join(map(str, sys.version_info[:3]))
        return refuse(
            f"{name}: {app} needs Python {version}, and this is Python {found}; "
            f"if the device has it, run: python{version} {name}"
        )
    try:
        from edgekit_agent.apps.installer import run_installer
    except Exception as error:  # noqa: BLE001 - whatever is wrong, the file is damaged
        return refuse(f"{name}: not a complete package file ({error}); copy it again")
    return run_installer(file, sys.argv[1:])


def read_statement(file: str) -> Dict[str, Any]:
    """Read ``package.json``; the installer checks it thoroughly."""
    with zipfile.ZipFile(file) as archive, archive.open("package.json") as member:
        return dict(json.loads(member.read(MOST_BYTES).decode()))


def refuse(line: str) -> int:
    """Write one line to standard error, and return the exit status of a wrong request."""
    sys.stderr.write(" ".join(line.split()) + "\n")
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
