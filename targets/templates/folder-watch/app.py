"""Files of a folder: each new file gets the answer of the model beside it.

The answer to ``photo.jpg`` is one line of JSON in ``photo.jpg.result.json``.
"""

import json
import mimetypes
import os

from edgekit_agent.failures import AgentError

# The folder that is watched; it is created when the app starts.
FOLDER = os.path.expanduser(os.environ.get("WATCH_FOLDER", "~/incoming"))
# Names that do not end so are left alone.
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".wav", ".txt", ".json")
RESULT = ".result.json"
# Larger files are not read.
MOST_BYTES = 64 << 20
EVERY_S = 1.0
# Failures that are not those of the file, which is tried again.
LATER = ("busy", "no_answer", "not_ready")


def watch(answer, stop):
    """Answer new files until the app stops.

    The app calls this function in a process beside its server. ``answer`` takes the bytes of a file
    and its media type, and returns the dictionary of the result; ``stop`` is set at the end.
    """
    os.makedirs(FOLDER, exist_ok=True)
    sizes = {}
    while not stop.wait(EVERY_S):
        for path in list_new_files():
            # A file whose size still changes is being written.
            try:
                size = os.path.getsize(path)
                if sizes.get(path) == size:
                    write_result(path, answer)
            except FileNotFoundError:  # it was removed or renamed just now
                continue
            sizes[path] = size


def list_new_files():
    """Return the paths of the files that have no result yet."""
    names = sorted(os.listdir(FOLDER))
    new = [n for n in names if n.lower().endswith(ENDINGS) and not n.endswith(RESULT)]
    return [os.path.join(FOLDER, n) for n in new if n + RESULT not in names]


def write_result(path, answer):
    """Write the answer to a file beside it, whole or not at all; nothing if there is none now."""
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    try:
        if len(data) > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
        found = answer(data, kind)
    except Exception as error:  # noqa: BLE001 - the next file may be a good one
        if isinstance(error, AgentError) and error.failure.kind in LATER:
            return
        found = {"error": str(error)}
    line = json.dumps({"file": os.path.basename(path), **found})
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(line + "\n")
    os.replace(path + ".part", path + RESULT)
