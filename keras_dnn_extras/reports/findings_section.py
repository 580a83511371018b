"""What the gradient monitor and the diagnosis have found."""

from typing import Any

from keras_dnn_extras._arguments import counted
from keras_dnn_extras.reports.blocks import Block, LeftOut, Remark, Section, Severity, Table
from keras_dnn_extras.reports.sources import Sources
from keras_dnn_extras.reports.wording import listed

_SEVERITIES: dict[str, Severity] = {
    "error": "error",
    "warning": "warning",
    "info": "info",
    "non-finite": "error",
    "exploding": "error",
    "vanishing": "warning",
}
_SHOWN = 50  # findings


def findings_section(sources: Sources) -> Section | LeftOut:
    """Return the findings of the gradient monitor."""
    if sources.monitor is None:
        return LeftOut("Findings of the monitor", "no `monitor` was passed")
    findings = list(sources.monitor.findings)
    updates = len(sources.monitor.history.get("gradient_norm", []))
    if not updates and not findings:
        return LeftOut("Findings of the monitor", "the monitor has recorded no update")
    remarks = [_monitor_remark(finding) for finding in findings[:_SHOWN]]
    if not findings:
        text = f"No vanishing, exploding or non-finite gradients in {counted(updates, 'update')}."
        remarks = [Remark("good", text)]
    return Section("findings", "Findings of the monitor", tuple(remarks), _more(len(findings)))


def _monitor_remark(finding: Any) -> Remark:
    kind = str(getattr(finding, "kind", ""))
    label = kind.capitalize()
    if hasattr(finding, "epoch") and hasattr(finding, "update"):
        label += f", epoch {finding.epoch + 1}, update {finding.update}"
    severity = str(getattr(finding, "severity", kind))
    return Remark(_SEVERITIES.get(severity, "warning"), str(getattr(finding, "message", finding)), label)


def diagnosis_section(sources: Sources) -> Section | LeftOut:
    """Return the findings of the diagnosis, and what it did not judge."""
    if sources.diagnosis is None:
        return LeftOut("Diagnosis", "no `diagnosis` was passed")
    findings = list(sources.diagnosis)
    ran = list(getattr(sources.diagnosis, "ran", ()))
    blocks: list[Block] = [_diagnosis_remark(finding) for finding in findings[:_SHOWN]]
    if not findings:
        blocks.append(Remark("good", f"Nothing found by {counted(len(ran), 'rule')}."))
    lead = (
        f"{counted(len(ran), 'rule')} ran. {_more(len(findings))}".strip() if ran else _more(len(findings))
    )
    return Section("diagnosis", "Diagnosis", (*blocks, *_skipped(sources.diagnosis)), lead)


def _diagnosis_remark(finding: Any) -> Remark:
    where = f", {listed([str(finding.layer)])}" if finding.layer else ""
    severity = _SEVERITIES.get(str(finding.severity).lower(), "warning")
    return Remark(severity, str(finding.message), f"{finding.rule}{where}", str(finding.remedy or ""))


def _skipped(diagnosis: Any) -> list[Table]:
    skipped = dict(getattr(diagnosis, "skipped", None) or {})
    if not skipped:
        return []
    rows: list[Any] = [(str(rule), str(reason)) for rule, reason in skipped.items()]
    return [Table(("rule", "why it did not run"), rows, f"{counted(len(rows), 'rule')} skipped")]


def _more(count: int) -> str:
    return f"The first {_SHOWN} of {count}." if count > _SHOWN else ""
