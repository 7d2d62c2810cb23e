"""Kill installations of an app at many times, and check what each leaves.

    python -m benchmarks.apps.install_kills [--trials N] [--seed N] [--folder DIR]

Half of the trials kill a first installation, and half an upgrade; half of each kill all processes
at once, as a power cut does. After every kill the app must be the old one, the new one or, at the
first installation, not there; a further installation must succeed and remove all leftovers.
"""

from __future__ import annotations

import argparse
import collections
import random
import shutil
import tempfile
from pathlib import Path

from tests.builders.apps.device import Device
from tests.builders.apps.kills import check_leftovers, check_state, kill_install, measure_install
from tests.builders.apps.packages import draft_package
from tests.builders.servers import make_bundle


def main() -> None:
    """Run the trials, and print how often each state was left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        counts = run_trials(Path(name), options.trials, random.Random(options.seed))
    for state, count in sorted(counts.items()):
        print(f"{count:5d}  {state}")


def run_trials(folder: Path, trials: int, chance: random.Random) -> collections.Counter[str]:
    """Return how often each kind of trial left each state."""
    make_bundle(folder / "bundle", width=5)
    draft = draft_package(folder / "bundle")
    old = draft.write(folder / "old.run")
    changed = {"pages/index.html": b"<title>Version 1.1</title>"}
    new = draft.replace(changed, version="1.1").write(folder / "new.run")
    device, counts = Device(folder / "device"), collections.Counter[str]()
    first_s = measure_install(lambda: device.install(old))
    upgrade_s = measure_install(lambda: device.install(new))
    print(f"first installation {first_s:.1f} s, upgrade {upgrade_s:.1f} s")
    for trial in range(trials):
        is_first, whole = trial % 2 == 0, trial % 4 < 2
        if is_first:
            shutil.rmtree(device.prefix)
            states = {"", "1.0"}
        else:
            assert device.install(old).returncode == 0
            states = {"1.0", "1.1"}
        file, seconds = (old, first_s) if is_first else (new, upgrade_s)
        was_killed = kill_install(device, file, chance.uniform(0, 1.1) * seconds, whole=whole)
        state = check_state(device, states) or "nothing"
        kind = "first installation" if is_first else "upgrade"
        counts[f"{kind}, {'killed' if was_killed else 'finished'}: {state}"] += 1
        print(f"{trial + 1} of {trials}: {kind}: {state}", flush=True)
        assert device.install(file).returncode == 0
        check_state(device, states - {""})
        check_leftovers(device)
    return counts


if __name__ == "__main__":
    main()
