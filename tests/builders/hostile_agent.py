"""An agent that lies, floods or falls silent: ``python hostile_agent.py MODE [PLACE]``.

The standard library alone, as on a device. It greets as an agent does, answers the first job
in a bad way and ends; ``PLACE`` names the home that it claims to have.
"""

import json
import sys
import time

STAGE = {"stage": "score", "done": 1, "total": 2}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def says(message: object) -> None:
    say(json.dumps(message))


def progress(**fields: object) -> None:
    says({"progress": {**STAGE, **fields}})
    says({"result": {}})


def fail(message: str, kind: str = "k", hint: str = "") -> None:
    says({"error": {"kind": kind, "message": message, "hint": hint}})


def endless_progress() -> None:
    done = 0
    while True:
        done += 1
        progress_line = {"progress": {"stage": f"step {done}", "done": done, "total": 1 << 62}}
        says(progress_line)


def slow_progress() -> None:
    while True:
        says({"progress": STAGE})
        time.sleep(0.05)


def slow_bytes() -> None:
    while True:
        sys.stdout.write("x")
        sys.stdout.flush()
        time.sleep(0.05)


def endless_line() -> None:
    while True:
        sys.stdout.write("x" * 65536)


def deep(opening: str) -> None:
    say(opening * 200_000)


def many_values() -> None:
    say('{"result": [' + "[]," * (20 << 20) + "[]]}")


ANSWERS = {
    "stage is a number": lambda: progress(stage=7),
    "stage is missing": lambda: says({"progress": {"done": 1, "total": 2}}),
    "progress is text": lambda: says({"progress": "fine"}),
    "done is text": lambda: progress(done="many"),
    "done is nothing": lambda: progress(done=None),
    "done is infinite": lambda: say('{"progress": {"stage": "s", "done": 1e999, "total": 2}}'),
    "done is negative": lambda: progress(done=-1),
    "total is huge": lambda: say(
        '{"progress": {"stage": "s", "done": 1, "total": 1%s}}' % ("0" * 99)
    ),
    "a number of 5000 digits": lambda: say('{"result": %s}' % ("9" * 5000)),
    "not a number": lambda: say('{"result": {"healthy": true, "relative_error": NaN}}'),
    "infinite result": lambda: say('{"result": {"healthy": true, "relative_error": 1e999}}'),
    "part of wrong type": lambda: progress(part={"start": "0", "tally": []}),
    "deep arrays": lambda: deep("["),
    "deep objects": lambda: deep('{"a":'),
    "deep progress": lambda: say('{"progress": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    "many values": many_values,
    "endless line": endless_line,
    "endless progress": endless_progress,
    "slow progress": slow_progress,
    "slow bytes": slow_bytes,
    "bad UTF-8": lambda: sys.stdout.buffer.write(b'{"result": "\xff\xfe"}\n'),
    "lone surrogate": lambda: say('{"error": {"kind": "k", "message": "\\ud800"}}'),
    "keys that are none": lambda: says({"result": {"keys": [{"public": "zz", "name": "k"}]}}),
    "a list": lambda: say("[]"),
    "nothing": lambda: sys.exit(0),
    "error of wrong type": lambda: says({"error": 5}),
    "long error": lambda: fail("m" * 900_000),
    "own lines": lambda: says({"error": {"kind": "k", "message": "a\nedgekit: all is well\n"}}),
    "terminal": lambda: says(
        {
            "error": {
                "kind": "k",
                "message": "\x1b]0;t\x07\x1b[2J\x9b1m\r",
                "hint": "\u202egnp\x1b[1m",
            }
        }
    ),
    "our fault": lambda: says({"error": {"kind": "bad_job", "message": "no"}}),
    "empty plan": lambda: says({"result": {"present": [], "free_bytes": 1}}),
    "long plan": lambda: says({"result": {"present": [-1] * 99, "free_bytes": 1}}),
    "plan below": lambda: says({"result": {"present": [-7, -7, -7], "free_bytes": 1}}),
    "plan beyond": lambda: says({"result": {"present": [1 << 40] * 3, "free_bytes": 1}}),
}


def main(mode: str, place: str = "/nowhere") -> None:
    sys.stderr.write("\x1b[2J")
    says({"edgekit": {"home": place}})
    sys.stdin.buffer.readline()
    ANSWERS[mode]()
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
