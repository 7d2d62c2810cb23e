"""SSH certificates of users and hosts, created by OpenSSH and checked against its server."""

import shutil
import subprocess

import pytest

from edgekit.errors import DeviceError
from edgekit.remote.ssh.client import SshTransport
from tests.builders.servers import make_key, start_sshd

pytestmark = pytest.mark.sshd
USER = "device"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A server that trusts an authority alone, and shows host certificates of it."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no OpenSSH on this machine")
    folder = tmp_path_factory.mktemp("certified") / "sshd"
    folder.mkdir()
    ca = make_key(folder / "ca")
    lines = (
        f"TrustedUserCAKeys {ca}.pub\nAuthorizedPrincipalsFile {folder}/principals\n"
        f"HostCertificate {folder}/host_ed25519-cert.pub\n"
    )
    (folder / "principals").write_text(f"{USER}\n")

    def certify():
        sign(ca, folder / "host_ed25519", "-h", "-n", "robot,*.robots")
        (folder / "key.pub").replace(folder / "key.pub.aside")  # the plain key opens nothing

    server = start_sshd(folder, lines=lines, before=certify)
    yield server
    server.process.terminate()
    server.process.wait()


def sign(ca, key, *options):
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(ca), "-I", "test", *options, f"{key}.pub"], check=True
    )


@pytest.fixture
def use(authority, tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    def use(**settings):
        config = authority.config(tmp_path / "config", **settings)
        monkeypatch.setenv("EDGEKIT_SSH_CONFIG", str(config))

    return use


@pytest.fixture
def key(tmp_path, request):
    kind = getattr(request, "param", "ed25519")
    path = tmp_path / "mine"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "mine", "-f", str(path)], check=True
    )
    return path


def hello():
    transport = SshTransport("dev")
    try:
        return transport.open("echo hello").readline(10)
    finally:
        transport.close()


@pytest.mark.parametrize("key", ["ed25519", "ecdsa", "rsa"], indirect=True)
def test_a_certificate_next_to_the_key_is_used(authority, use, key):
    sign(authority.folder / "ca", key, "-n", USER)
    use(IdentityFile=key)
    assert hello() == b"hello\n"


def test_a_certificate_named_by_the_configuration_is_used(authority, use, key, tmp_path):
    sign(authority.folder / "ca", key, "-n", USER)
    key.with_name("mine-cert.pub").rename(tmp_path / "pass.pub")
    use(IdentityFile=key)
    with pytest.raises(DeviceError, match=r"login as \w+ refused"):
        hello()
    use(IdentityFile=key, CertificateFile=tmp_path / "pass.pub")
    assert hello() == b"hello\n"


def test_with_an_untrusted_certificate_the_plain_key_is_used(sshd, tmp_path, key):
    """The key of the other server opens it, whatever certificate lies beside it."""
    copy = tmp_path / "copy"
    for end in ("", ".pub"):
        shutil.copy(f"{sshd.folder}/key{end}", f"{copy}{end}")
    sign(make_key(tmp_path / "stranger"), copy, "-n", "someone")
    sshd.config(tmp_path / "ssh_config", IdentityFile=copy)
    assert hello() == b"hello\n"


@pytest.mark.parametrize("key", ["ed25519", "rsa"], indirect=True)
@pytest.mark.parametrize("holds", ["key and certificate", "key"])
def test_a_certificate_works_with_an_agent(authority, use, key, tmp_path, holds):
    sign(authority.folder / "ca", key, "-n", USER)
    certificate = key.with_name("mine-cert.pub")
    apart = tmp_path / "apart-cert.pub"
    if holds == "key":
        certificate.rename(apart)
    agent = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL)
    try:
        while not agent.exists():
            pass
        subprocess.run(
            ["ssh-add", "-q", str(key)],
            check=True,
            capture_output=True,
            env={"SSH_AUTH_SOCK": str(agent)},
        )
        key.unlink()
        more = {"CertificateFile": apart} if holds == "key" else {"IdentitiesOnly": "no"}
        use(IdentityFile=key, IdentityAgent=agent, **more)
        assert hello() == b"hello\n"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("text", ["", "not a key\n", "ssh-ed25519 AAAA\n", None])
def test_an_invalid_certificate_file_is_named(use, key, tmp_path, text):
    if text is not None:
        (tmp_path / "c.pub").write_text(text)
    use(IdentityFile=key, CertificateFile=tmp_path / "c.pub")
    with pytest.raises(
        DeviceError, match=rf"tried {tmp_path}/c\.pub \((does not exist|is not)"
    ) as caught:
        hello()
    assert "\n" not in caught.value.message


def write_known_hosts(authority, name, marker="@cert-authority"):
    line = (authority.folder / "ca.pub").read_text()
    return f"{marker} {name} {line}"


@pytest.fixture
def certified(authority, key):
    sign(authority.folder / "ca", key, "-n", USER)
    return key


def test_a_host_certificate_of_a_known_authority_is_trusted(authority, use, certified):
    for alias, name in (("robot", "robot"), ("arm.robots", "*.robots")):
        use(IdentityFile=certified, HostKeyAlias=alias, known=write_known_hosts(authority, name))
        assert hello() == b"hello\n"


def test_a_host_certificate_for_another_name_is_refused(authority, use, certified):
    use(IdentityFile=certified, HostKeyAlias="other", known=write_known_hosts(authority, "*"))
    with pytest.raises(DeviceError, match=r"it is for robot, .*not for other"):
        hello()


def test_a_host_certificate_of_another_authority_is_refused(authority, use, certified, tmp_path):
    stranger = make_key(tmp_path / "stranger").with_suffix(".pub").read_text()
    use(
        IdentityFile=certified,
        HostKeyAlias="robot",
        known=f"@cert-authority * {stranger}",
    )
    with pytest.raises(
        DeviceError, match="known only through a certificate authority, but not signed by it"
    ):
        hello()


def test_a_revoked_authority_is_refused(authority, use, certified):
    lines = write_known_hosts(authority, "*") + write_known_hosts(authority, "*", "@revoked")
    use(IdentityFile=certified, HostKeyAlias="robot", known=lines)
    with pytest.raises(DeviceError, match="@revoked"):
        hello()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", "robot", "-h", "-V", "-2d:-1d"], "has expired"),
        (["-n", "robot", "-h", "-V", "+1d:+2d"], "not valid yet"),
        (["-n", "robot"], "it is a user certificate"),
        (["-h"], "for no host"),
    ],
)
def test_an_invalid_host_certificate_is_refused(
    authority, use, certified, tmp_path, options, message
):
    from edgekit.remote.ssh.host_certificates import read_host_certificate

    sign(authority.folder / "ca", certified, *options)
    kind, text = certified.with_name("mine-cert.pub").read_text().split()[:2]
    import base64

    with pytest.raises(ValueError, match=message):
        read_host_certificate(
            kind,
            base64.b64decode(text),
            host="robot",
            matches=lambda pattern, name: pattern == name,
        )


def test_a_changed_byte_of_a_host_certificate_is_detected(authority, certified):
    import base64

    from edgekit.remote.ssh.host_certificates import read_host_certificate

    sign(authority.folder / "ca", certified, "-h", "-n", "robot")
    kind, text = certified.with_name("mine-cert.pub").read_text().split()[:2]
    blob = base64.b64decode(text)
    read_host_certificate(kind, blob, host="robot", matches=str.__eq__)
    for at in range(0, len(blob), 7):
        changed = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
        with pytest.raises(ValueError, match=r"."):
            read_host_certificate(kind, changed, host="robot", matches=str.__eq__)
