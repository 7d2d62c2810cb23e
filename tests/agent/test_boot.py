"""Installation of the watcher's start at boot: a systemd user unit, or a crontab line."""

import getpass
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from edgekit_agent.boot import cron, mounts, user_units
from edgekit_agent.boot import start as boot

ODD = "it's 100% $odd"
SYSTEMCTL = """\
#!/bin/sh
echo "$*" >>{log}
case "$*" in
*is-enabled*)
    for name; do :; done
    [ -L {config}/systemd/user/default.target.wants/$name ] && {{ echo enabled; exit 0; }}
    echo "Failed to get unit file state for $name: No such file or directory" >&2; exit 1 ;;
esac
"""
CRONTAB = """\
#!/bin/sh
case "$1" in
-l) [ -e {table} ] && exec cat {table}; echo "no crontab for me" >&2; exit 1 ;;
-) exec cat >{table} ;;
esac
"""


class System:
    """A file system root without systemd and cron, and programs that replace the real ones."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin = folder / "root", folder / "bin"
        self.table, self.asked = folder / "table", folder / "asked"
        (self.root / "proc/1").mkdir(parents=True)
        (self.root / "proc/1/comm").write_text("init\n")
        self.bin.mkdir()

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start_systemd(self, *, lingers: bool = True, config: Path) -> None:
        (self.root / "run/systemd/system").mkdir(parents=True)
        linger = self.root / "var/lib/systemd/linger"
        linger.mkdir(parents=True)
        if lingers:
            (linger / getpass.getuser()).touch()
        self.program("systemctl", SYSTEMCTL.format(log=self.asked, config=config))

    def start_cron(self) -> Path:
        (self.root / "proc/1/comm").write_text("cron\n")
        self.program("crontab", CRONTAB.format(table=self.table))
        return self.table

    def prepare(self, home: Path) -> boot.BootStart:
        return boot.prepare_boot(str(home), system=str(self.root))


@pytest.fixture
def system(tmp_path, monkeypatch):
    made = System(tmp_path / "system")
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for module in (cron, user_units):  # the tests may run on a board that keeps /tmp in memory
        monkeypatch.setattr(module, "is_in_memory", lambda path: False)
    return made


@pytest.fixture
def config(tmp_path):
    return tmp_path / "user/.config"


@pytest.fixture(params=["plain", ODD])
def home(request, tmp_path):
    folder = tmp_path / request.param
    folder.mkdir()
    return folder


def unit_of(config: Path) -> Path:
    (link,) = (config / "systemd/user/default.target.wants").iterdir()
    assert link.resolve().parent == (config / "systemd/user").resolve()
    return link.resolve()


def get_retry_command(home: Path) -> str:
    """Return the shell part of the watcher's start command, with shorter pauses."""
    return boot._RETRY.replace("sleep 5", "sleep 0.1")


# --- systemd -------------------------------------------------------------------------------


def test_a_lingering_user_has_a_unit_of_systemd(system, home, config):
    system.start_systemd(config=config)
    for _ in range(2):
        assert system.prepare(home) == boot.BootStart("systemd")
    text = unit_of(config).read_text()
    assert 'ExecStart="/bin/sh" "-c" ' in text
    subprocess.run(["/bin/sh", home / "watch.sh"], check=True, timeout=60)


def test_the_unit_is_one_that_systemd_accepts(system, home, config):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("not installed: systemd-analyze")
    system.start_systemd(config=config)
    system.prepare(home)
    command = [analyze, "--user", "verify", unit_of(config)]
    # The path of a socket has at most 107 characters, and that of a test is long.
    with tempfile.TemporaryDirectory() as sockets:
        environment = os.environ | {"XDG_RUNTIME_DIR": sockets}
        done = subprocess.run(
            command, timeout=60, env=environment, capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_user_who_does_not_linger_has_no_unit(system, home, config):
    system.start_systemd(lingers=False, config=config)
    start = system.prepare(home)
    assert (start.mechanism, "loginctl enable-linger" in start.problem) == ("", True)
    assert "no running cron" in start.problem
    assert not config.exists()


def test_the_unit_is_where_the_users_systemd_looks_not_where_the_login_does(
    system, home, config, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of the login"))
    system.start_systemd(config=config)
    assert system.prepare(home).mechanism == "systemd"
    assert unit_of(config).exists()
    assert not (tmp_path / "of the login").exists()


def test_the_unit_is_where_both_look(system, home, config, tmp_path, monkeypatch):
    both = tmp_path / "both"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(both))
    system.start_systemd(config=both)
    assert system.prepare(home).mechanism == "systemd"
    assert unit_of(both).exists()
    assert not config.exists()


def test_a_unit_that_systemd_does_not_see_promises_nothing(system, home, config, tmp_path):
    (config / "systemd/user").mkdir(parents=True)
    system.start_systemd(config=tmp_path / "elsewhere")
    start = system.prepare(home)
    assert start.mechanism == ""
    assert "No such file or directory" in start.problem
    assert [path for path in config.rglob("*") if path.is_file()] == []
    system.start_cron()
    assert system.prepare(home).mechanism == "cron"


def test_a_configuration_that_cannot_be_written_leaves_it_to_cron(system, home, config):
    config.parent.mkdir()
    config.write_text("a file")
    system.start_systemd(config=config)
    assert "systemd: " in system.prepare(home).problem
    system.start_cron()
    assert system.prepare(home).mechanism == "cron"


def test_the_watcher_is_started_in_the_users_systemd_too(system, home, config):
    system.start_systemd(config=config)
    boot.start_now(str(home), system.prepare(home))
    asked = system.asked.read_text().splitlines()
    assert asked[-1].startswith("--user --no-pager restart --no-block edgekit-watch-")
    boot.start_now(str(home), boot.BootStart("cron"))
    assert system.asked.read_text().splitlines() == asked


# --- cron ----------------------------------------------------------------------------------


def test_without_systemd_cron_gets_a_line_and_keeps_the_others(system, home):
    table = system.start_cron()
    # A form feed, a line separator of Unicode, no UTF-8, and no line feed at the end.
    others = b'MAILTO=""\n0 1 * * * echo 5 \\% \x0c of \xe2\x80\xa8 \xff # edgekit-watch\n'
    table.write_bytes(others + b"@daily last")
    for _ in range(2):
        assert system.prepare(home) == boot.BootStart("cron")
    data = table.read_bytes()
    assert data.startswith(others + b"@daily last\n@reboot /bin/sh -c ")
    assert data.count(b"@reboot") == 1
    assert data.endswith(b"\n")


def test_the_line_runs_the_watcher(system, home):
    table = system.start_cron()
    system.prepare(home)
    (line,) = table.read_text().splitlines()
    command = line.removeprefix("@reboot ").replace("\\%", "%")
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=60)


@pytest.mark.parametrize("said", ["crontabs/me/: Permission denied", "you are not allowed", ""])
def test_a_crontab_that_cannot_be_read_is_not_changed(system, home, said):
    table = system.start_cron()
    table.write_text("0 1 * * * backup\n")
    text = CRONTAB.format(table=table).replace("-l)", f'-l) echo "{said}" >&2; exit 1 ;;\n-L)')
    system.program("crontab", text)
    start = system.prepare(home)
    assert (start.mechanism, said in start.problem) == ("", True)
    assert table.read_text() == "0 1 * * * backup\n"


def test_a_refused_crontab_promises_nothing(system, home):
    system.start_cron()
    system.program(
        "crontab", '#!/bin/sh\n[ "$1" = - ] || echo "no crontab for me" >&2\necho no >&2\nexit 1\n'
    )
    assert system.prepare(home).problem.endswith("crontab: no")


def test_a_line_that_crontab_did_not_save_promises_nothing(system, home):
    system.start_cron()
    system.program("crontab", '#!/bin/sh\n[ "$1" = - ] && cat >/dev/null\nexit 0\n')
    assert "did not save the line" in system.prepare(home).problem


def test_a_backslash_in_the_path_promises_nothing(system, tmp_path):
    table = system.start_cron()
    (tmp_path / "a\\b").mkdir()
    assert "backslash" in system.prepare(tmp_path / "a\\b").problem
    assert not table.exists()


def test_a_cron_without_a_daemon_or_of_busybox_promises_nothing(system, home):
    system.start_cron()
    (system.root / "proc/1/comm").write_text("init\n")
    assert "no running cron" in system.prepare(home).problem
    system.start_cron()
    (system.bin / "busybox").write_text("")
    (system.bin / "busybox").chmod(0o755)
    (system.bin / "crontab").unlink()
    (system.bin / "crontab").symlink_to("busybox")
    assert "no running cron" in system.prepare(home).problem


# --- both ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["new\nline", "esc\x1b"])
def test_a_path_that_units_and_crontabs_do_not_support_promises_nothing(system, tmp_path, name):
    table = system.start_cron()
    (tmp_path / name).mkdir()
    assert system.prepare(tmp_path / name).mechanism == ""
    assert not table.exists()


def test_a_crontab_in_memory_only_promises_nothing(system, home, config, monkeypatch):
    system.start_systemd(config=config)
    system.start_cron()
    for module in (cron, user_units):
        monkeypatch.setattr(module, "is_in_memory", lambda path: True)
    start = system.prepare(home)
    assert (start.mechanism, start.problem.count("in memory only")) == ("", 2)


def test_a_folder_in_memory_is_known(tmp_path):
    if subprocess.run(["stat", "-fc%T", "/dev/shm"], capture_output=True).stdout != b"tmpfs\n":
        pytest.skip("/dev/shm is not in memory here")
    assert mounts.is_in_memory("/dev/shm/not/there/yet")
    assert not mounts.is_in_memory("/proc")


def test_a_home_that_is_mounted_late_is_waited_for(tmp_path):
    script = tmp_path / "not mounted yet/watch.sh"
    waiting = subprocess.Popen(["/bin/sh", "-c", get_retry_command(tmp_path), script])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.3)
        script.parent.mkdir()
        script.write_text(f"echo yes >'{tmp_path}/done'\n")
        assert waiting.wait(20) == 0
    finally:
        waiting.kill()
    assert (tmp_path / "done").read_text() == "yes\n"


def test_a_home_that_is_never_mounted_is_waited_for_ten_minutes(tmp_path):
    text = boot._RETRY.replace("sleep 5", 'echo >>"$0.tries"')
    command = ["/bin/sh", "-c", text, tmp_path / "watch.sh"]
    assert subprocess.run(command, check=False, timeout=60).returncode == 1
    assert len((tmp_path / "watch.sh.tries").read_text()) == 120
