"""The log of errors of an app's own code."""

from edgekit_agent.apps.serving.error_log import ErrorLog


def test_a_repeated_error_is_written_once_and_many_errors_do_not_fill_the_disk(capsys):
    log = ErrorLog()
    for _ in range(1000):
        log.write("app_failed: the same")
    assert capsys.readouterr().err == "app_failed: the same\n"
    for number in range(1000):
        log.write(f"app_failed: {number} " + "x" * 10_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("app_failed: 0 ")
    assert len(lines) == 100
    assert lines[-1] == "too many errors; further ones are not written for an hour"
    assert max(map(len, lines)) == 1000
