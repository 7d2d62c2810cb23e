"""Alarms in recordings: the answer to one recording, and a watch of a folder of recordings."""

import os

FOLDER = os.path.expanduser(os.environ.get("WATCH_FOLDER", "~/recordings"))
LEAST_CONFIDENCE = 0.8
EVERY_S = 1.0


def answer(models, sample):
    """Return whether there is an alarm in a recording of one second."""
    return models["main"].predict(sample)


def watch(answer, stop):
    """Write a line to alarms.log for each new recording in the folder that holds an alarm."""
    os.makedirs(FOLDER, exist_ok=True)
    sizes, done = {}, set()
    while not stop.wait(EVERY_S):
        for name in sorted(set(os.listdir(FOLDER)) - done):
            path = os.path.join(FOLDER, name)
            if name.endswith(".wav") and sizes.get(name) == os.path.getsize(path):
                done.add(name)
                note_alarm(name, path, answer)
            sizes[name] = os.path.getsize(path)


def note_alarm(name, path, answer):
    """Write the name of a recording to the log if it holds an alarm."""
    with open(path, "rb") as file:
        found = answer(file.read(), "audio/wav")
    if found["result"] == "alarm" and found["confidence"] >= LEAST_CONFIDENCE:
        with open(os.path.join(FOLDER, "alarms.log"), "a", encoding="utf-8") as log:
            log.write(f"{name} {found['confidence']:.2f}\n")
