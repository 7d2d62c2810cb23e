"""Formatting of results as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edgekit.bundle.latency_stats import LatencySummary
from edgekit.bundle.layer_report import LayerCost
from edgekit.compression.checks.agreement import Agreement
from edgekit.compression.recipe_parser import PassFacts
from edgekit.config.profile import DeviceProfile
from edgekit.pipeline.apply import ApplyResult
from edgekit.pipeline.benchmark import BenchResult
from edgekit.printable import escape_text
from edgekit.remote.deploy import PushReport
from edgekit.reporting.text_tables import format_accuracy, format_size, format_table
from edgekit_agent.codec import encode
from edgekit_agent.releases.provenance import Provenance
from edgekit_agent.results import (
    AppStatus,
    AuditLine,
    DeviceFacts,
    Release,
    Status,
    UninstallResult,
)
from edgekit_agent.worker_results import Health

_SHOWN_LAYERS = 8
_SHOWN_OUTPUTS = 8


def format_apply_result(made: ApplyResult) -> str:
    """Format the result of one pass: sizes, agreement, and the layers with the highest cost."""
    before, after = made.before, made.after
    lines = [
        f"{made.step.name}: {before.path} -> {after.path} in {made.seconds:.1f} s",
        f"  file {format_size(before.bytes)} -> {format_size(after.bytes)}, "
        f"download {format_size(before.transfer_bytes)} -> {format_size(after.transfer_bytes)}",
        *_format_mac_change(made),
        f"  {_format_agreement(made)}",
        *(f"  note: {note}" for note in made.notes),
    ]
    if made.layers:
        worst = sorted(made.layers, key=lambda c: -c.kl)[:_SHOWN_LAYERS]
        lines += ["", *(f"  {line}" for line in _format_layer_table(worst).splitlines())]
    return "\n".join(lines)


def _format_mac_change(made: ApplyResult) -> list[str]:
    if made.macs is None or not made.macs[0]:
        return []
    before, after = made.macs
    return [f"  MACs {before:,} -> {after:,} ({100 * (after / before - 1):+.1f} %)"]


def _format_agreement(made: ApplyResult) -> str:
    found = made.agreement
    if found is None:
        return "nothing to change: the output file is identical to the input"
    if not found.samples:
        return "output error not measured: no samples (--data CALIB)"
    if found.worst is None:
        return f"output error not measured: no float output on {found.samples} samples"
    told = [f"relative output error {found.worst[1]:.3g} on {_format_sample_count(found)}"]
    if len(found.relative_errors) > 1:
        told[0] += ", largest first:"
        each = list(found.relative_errors.items())
        told += [f"    {name} {error:.3g}" for name, error in each[:_SHOWN_OUTPUTS]]
        more = len(each) - _SHOWN_OUTPUTS
        told += [f"    and {more} more with smaller errors"] if more > 0 else []
    return "\n".join(told)


def _format_sample_count(found: Agreement) -> str:
    if found.unseen:
        return f"{found.unseen} held-out samples"
    return f"{found.samples} samples"


def _format_layer_table(costs: Sequence[LayerCost]) -> str:
    head = ["most sensitive layers", "operator", "parameters", "width", "bits", "bytes", "KL"]
    rows = [
        [
            c.layer,
            c.op,
            f"{c.parameters:,}",
            str(c.width),
            f"{c.bits:.2f}",
            format_size(c.bytes),
            f"{c.kl:.3g}",
        ]
        for c in costs
    ]
    if any(c.remarks for c in costs):
        head.append("remarks")
        rows = [[*row, c.remarks] for row, c in zip(rows, costs, strict=True)]
    return format_table([head, *rows])


def encode_apply_result(made: ApplyResult) -> dict[str, object]:
    """Return the result of one pass as plain data."""
    found = made.agreement
    return {
        "pass": made.step.name,
        "version": made.step.version,
        "settings": made.step.settings,
        "before": made.before,
        "after": made.after,
        "changed": found is not None,
        "macs": made.macs,
        "relative_error": found.worst[1] if found and found.samples and found.worst else None,
        "relative_errors": found.relative_errors if found and found.samples else {},
        "correlation": found.correlation if found else {},
        "samples": (found.unseen or found.samples) if found else 0,
        "unseen": bool(found and found.unseen),
        "seen_errors": found.seen_errors if found else {},
        "layers": made.layers,
        "notes": made.notes,
        "seconds": made.seconds,
    }


def format_passes(found: Sequence[PassFacts]) -> str:
    """Format a paragraph for each pass."""
    return "\n".join(_format_pass(facts) for facts in found)


def _format_pass(facts: PassFacts) -> str:
    needs = "; needs calibration data" if facts.needs_calibration else ""
    whose = f" (plugin {facts.plugin})" if facts.plugin else ""
    head = f"{facts.name}: {facts.summary}{needs}{whose}"
    return "\n".join([head, *(f"  {s}" for s in facts.settings)])


def format_pass_details(facts: PassFacts) -> str:
    """Format one pass with the meaning of its settings."""
    meaning = facts.meaning.replace("``", "'")
    return f"{_format_pass(facts)}\n\n{meaning}".rstrip()


def format_push_reports(reports: Iterable[PushReport]) -> str:
    """Format a line for each host, and a note if a reboot would not trigger the rollback."""
    return "\n".join(line for report in reports for line in _iter_push_lines(report))


def _iter_push_lines(r: PushReport) -> Iterator[str]:
    yield (
        f"{_format_place(r.host, r.name)}: serves {r.release} ({r.runtime}), "
        f"health {_format_health(r.health)}, sent {format_size(r.sent_bytes)} in {r.seconds:.1f} s"
        f"{f', previous release {r.previous}' if r.previous else ''}"
    )
    if r.watch is not None and not r.watch.after_reboot:
        yield (
            "  note: if the device reboots before a release is confirmed, it does not roll back "
            "by itself: "
            f"{escape_text(r.watch.boot_problem)}"
        )


def _format_health(health: Health | None) -> str:
    if health is None:
        return "not checked"
    return f"ok (relative error {health.relative_error:.2g})"


def format_bench_results(results: Iterable[BenchResult]) -> str:
    """Format a line for each host, with its doubts and notes."""
    return "\n".join(line for result in results for line in _iter_bench_lines(result))


def _iter_bench_lines(result: BenchResult) -> Iterable[str]:
    accuracy = "".join(f", {each.title} {each} ({each.metric})" for each in result.scores)
    yield (
        f"{result.host}: {_format_times(result.times)}, "
        f"peak RSS {format_size(result.peak_rss_bytes)}, "
        f"load {result.load_ms:.0f} ms{accuracy}; {result.runtime}, {result.threads} threads, "
        f"{result.facts.cpu or result.facts.machine}"
    )
    for doubt in result.times.doubts:
        yield f"  unreliable: {doubt}"
    for note in result.notes:
        yield f"  note: {note}"


def _format_times(times: LatencySummary) -> str:
    low, high = times.p50_interval_ms
    text = f"p50 {times.p50_ms:.3g} ms [{low:.3g}, {high:.3g}], p95 {times.p95_ms:.3g} ms"
    if times.p99_ms is not None:
        text += f", p99 {times.p99_ms:.3g} ms"
    return f"{text} ({times.runs} runs, {times.processes} processes)"


def _format_place(host: str, name: str | None) -> str:
    """Format a host, and the name of releases there."""
    return f"{host} ({name})" if name else host


def encode_states(
    found: Iterable[tuple[str, Status | UninstallResult]], *, name: str | None = None
) -> list[dict[str, object]]:
    """Return the states of hosts, or of a name there, as plain data."""
    place = {"name": name} if name else {}
    return [{"host": host} | place | encode(state) for host, state in found]


def format_removals(found: Iterable[tuple[str, UninstallResult]], *, name: str) -> str:
    """Format a line for each host from which a name was removed, and a note on its watcher."""
    return "\n".join(line for each in found for line in _iter_removal_lines(*each, name))


def _iter_removal_lines(host: str, removed: UninstallResult, name: str) -> Iterator[str]:
    release = f", which served {removed.release}" if removed.release else ""
    runtimes = f", with {', '.join(removed.runtimes)}" if removed.runtimes else ""
    yield f"{host}: removed {name}{release}{runtimes}"
    if removed.boot_problem:
        yield f"  note: the start of its watcher at boot stays: {escape_text(removed.boot_problem)}"


def format_rollbacks(found: Iterable[tuple[str, Status]], *, name: str | None = None) -> str:
    """Format a line for each host with the release it went back to and the one before."""
    return "\n".join(
        f"{_format_place(host, name)}: rolled back to "
        f"{_format_release(status.current, status.current_model)}, health "
        f"{_format_health(status.health)}; "
        f"previous: {_format_release(status.previous, status.previous_model)}"
        for host, status in found
    )


def format_states(found: Iterable[tuple[str, Status]], *, name: str | None = None) -> str:
    """Format the current and the previous release of each host and name, and its audit log."""
    return "\n".join(
        line
        for host, status in found
        for line in (
            f"{_format_place(host, name)}: {_format_state(status)}",
            *(f"  note: {note}" for note in _iter_state_notes(status)),
            *(line for app in status.apps for line in _iter_app_lines(app)),
            *(f"  {_format_audit_line(line)}" for line in status.log),
        )
    )


def _format_state(status: Status | AppStatus) -> str:
    return (
        f"serves {_format_release(status.current, status.current_model)}; "
        f"previous: {_format_release(status.previous, status.previous_model)}"
    )


def _iter_app_lines(app: AppStatus) -> Iterator[str]:
    yield f"  {app.name}: {_format_state(app)}"
    for note in _iter_watch_notes(app):
        yield f"    note: {note}"


def _iter_watch_notes(status: Status | AppStatus) -> Iterator[str]:
    if status.watch is not None and status.current and status.watch.release == status.current.name:
        yield (
            f"{status.watch.release} is not confirmed yet; without confirmation the device rolls "
            f"back to {status.watch.previous}"
        )


def _iter_state_notes(status: Status) -> Iterator[str]:
    yield from _iter_watch_notes(status)
    if status.trust is None:
        yield (
            "the device's file of trusted keys is damaged; it accepts no release until you run "
            "'edgekit keys trust --replace'"
        )


def _format_audit_line(line: AuditLine) -> str:
    """Format a line of the audit log: user, action, time and result."""
    who = f"{line.user} from {line.client}" if line.client else line.user
    signed = [f"key {line.key}"] if line.key else []
    signed += [f"version {line.version}"] if line.version else []
    what = " ".join(part for part in (line.action, line.app, line.release) if part)
    return ", ".join([f"{line.at} {what}", *signed, f"by {who}: {line.result}"])


def _format_release(release: Release | None, model: Provenance | None) -> str:
    if release is None:
        return "nothing"
    if not release.model:
        return f"{release.name} (its record is damaged; push it again)"
    runtime = f"{release.runtime} {release.runtime_version}".strip()
    parts = [release.model, *_iter_provenance(model), runtime, f"installed {release.installed_at}"]
    return f"{release.name} ({', '.join(parts)})"


def _iter_provenance(model: Provenance | None) -> Iterable[str]:
    if model is None:
        return
    yield model.recipe
    drop = f", drop {model.drop:+.2f} {model.unit}".rstrip() if model.drop is not None else ""
    if model.n and model.correct is not None:
        accuracy = f"accuracy {format_accuracy(model.correct, model.n)}"
        yield f"{accuracy} ({model.metric}, {model.source}{drop})"
    elif model.n and model.value is not None:
        yield f"{model.metric} {model.value:.4g} ({model.n} samples, {model.source}{drop})"


def format_profiles(found: Iterable[DeviceProfile]) -> str:
    """Format a line for each profile."""
    listed = list(found)
    width = max(len(p.name) for p in listed)
    return "\n".join(f"{p.name:<{width}}  {p.summary}" for p in listed)


def encode_probes(found: Iterable[tuple[str, DeviceFacts]]) -> list[dict[str, object]]:
    """Return the facts of devices as plain data."""
    return [{"host": host} | encode(facts) for host, facts in found]


def format_probes(found: Iterable[tuple[str, DeviceFacts]]) -> str:
    """Format the facts of devices."""
    return "\n".join(_format_probe(host, facts) for host, facts in found)


def _format_probe(host: str, facts: DeviceFacts) -> str:
    lines = [
        f"{host}: {facts.cpu or 'unknown processor'}, {facts.machine}, {facts.cores} cores",
        f"  {facts.system} {facts.kernel}, {facts.libc or 'unknown libc'}, Python {facts.python}",
        f"  isa: {', '.join(facts.isa) or 'unknown'}",
        f"  memory {format_size(facts.memory_bytes)} "
        f"({format_size(facts.free_memory_bytes)} free), "
        f"disk {format_size(facts.free_disk_bytes)} free",
    ]
    for runtime in facts.runtimes:
        state = "works" if runtime.works else f"does not work: {runtime.detail}"
        lines.append(f"  {runtime.package} {runtime.version}: {state}")
    if not facts.runtimes:
        lines.append("  no runtime; 'edgekit push' installs one")
    return "\n".join(lines)
