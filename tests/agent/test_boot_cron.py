"""The watcher's crontab line, run by a real cron in its own namespaces (needs root and cron)."""

import os
import shutil
import subprocess
import sys

import pytest

ODD = "it's 100% $odd"
OTHERS = 'MAILTO=""\n# mine\n0 1 * * * echo 5 \\% \x0c of\n'
# A boot of cron: it runs @reboot lines unless the file says that it has done so since the boot.
BOOT = """\
set -e
mount --make-rprivate /
mount --bind "$1/spool" /var/spool/cron
mount -t tmpfs run /run
cron -f & booted=$!
crontab "$1/others"
"$2" -I -c "$4" "$5" "$1/$3"
crontab -l >"$1/listed"
printf 'echo >"%s/done"\n' "$1" >"$1/$3/watch.sh"
kill $booted; wait $booted || :
rm -f /run/crond.reboot
cron -f & booted=$!
n=0; until [ -e "$1/done" ]; do n=$((n+1)); [ $n -lt 300 ]; sleep 0.1; done
kill $booted
"""
PREPARE = """\
import sys; sys.path.insert(0, sys.argv[1])
from edgekit_agent.boot import start as boot
start = boot.prepare_boot(sys.argv[2])
assert start == boot.BootStart("cron"), start
"""


def test_a_real_cron_runs_the_watcher_at_boot_and_keeps_the_other_lines(tmp_path):
    missing = [tool for tool in ("cron", "crontab", "unshare") if shutil.which(tool) is None]
    if missing or os.geteuid():
        pytest.skip(f"not installed: {', '.join(missing)}" if missing else "not root")
    (tmp_path / ODD).mkdir()
    (tmp_path / "spool/crontabs").mkdir(parents=True, mode=0o730)
    (tmp_path / "others").write_text(OTHERS)
    from edgekit_agent.supervise import ROOT

    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += ["sh", "-c", BOOT, "sh", tmp_path, sys.executable, ODD, PREPARE, ROOT]
    if subprocess.run([*command[:6], "true"], check=False, capture_output=True).returncode:
        pytest.skip("namespaces are not allowed here")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").exists()
    listed = (tmp_path / "listed").read_text()
    assert listed.startswith(f"{OTHERS}@reboot /bin/sh -c ")
