"""Small wheels for tests of the choice and the locking of wheels."""

import hashlib
import zipfile


def make_wheel(folder, name, version, tag="py3-none-any", requires=(), files=()):
    """Write a wheel into a folder, and return its path."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "License: MIT"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/__init__.py", f"# {name} {version}\n" * 20)
        for each in files:
            archive.writestr(each, f"{each}\n" * 100)
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def digest(path):
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
