"""What an audit says: findings with a severity, and the facts that they rest on."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmrec.io.files import replacing

Severity = Literal["serious", "warning", "notice"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "notice")
MEANING = {
    "serious": "the AUC will be wrong, or training will break",
    "warning": "results may mislead, or be worse than they need be",
    "notice": "worth knowing when results are read",
}


@dataclass(frozen=True)
class Finding:
    """One thing that the data are.

    Attributes:
        severity: see `MEANING`.
        name: a fixed name to look for in JSON, such as `target_in_history`.
        sentence: what was found and what it means.
        advice: what to do.
        evidence: the figures behind it, JSON-able.
    """

    severity: Severity
    name: str
    sentence: str
    advice: str
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The outcome of an audit.

    Attributes:
        root: the directory that was audited.
        findings: the most severe first.
        facts: figures by section (files, shape, leaks, shift, content, standard), JSON-able.
    """

    root: str
    findings: tuple[Finding, ...]
    facts: dict[str, Any]

    @property
    def serious(self) -> tuple[Finding, ...]:
        """Findings that make an AUC wrong or break training."""
        return tuple(finding for finding in self.findings if finding.severity == "serious")

    def named(self, name: str) -> tuple[Finding, ...]:
        """All findings of this name."""
        return tuple(finding for finding in self.findings if finding.name == name)

    def headlines(self) -> str:
        """The serious findings, a line each, and how many others there are."""
        lines = [f"audit, serious: {f.sentence} {f.advice}" for f in self.serious]
        others = len(self.findings) - len(self.serious)
        return "\n".join([*lines, f"audit: {len(lines)} serious findings, {others} others"])

    def to_json(self) -> str:
        """The whole report; NaN and infinity become null."""
        content = {
            "root": self.root,
            "findings": [vars(finding) for finding in self.findings],
            "facts": self.facts,
        }
        return json.dumps(_plain(content), indent=1, allow_nan=False)

    def markdown(self) -> str:
        """The findings, then the facts as tables."""
        lines = ["# Audit of " + f"`{Path(self.root).name or self.root}`", "", _summary(self), ""]
        for severity in SEVERITIES:
            some = [finding for finding in self.findings if finding.severity == severity]
            if not some:
                continue
            lines += [f"## {severity.capitalize()}: {MEANING[severity]}", ""]
            lines += [f"- **{f.name}.** {f.sentence} *{f.advice}*" for f in some] + [""]
        for section, facts in self.facts.items():
            lines += [f"## Facts: {section}", "", *_tables(facts)]
        return "\n".join(lines).rstrip() + "\n"

    def terminal(self, *, width: int = 100, facts: bool = False) -> str:
        """The findings as plain text; `facts=True` adds the tables."""
        lines = [_summary(self)]
        for finding in self.findings:
            head = f"{finding.severity.upper():8}{finding.name}"
            body = f"{finding.sentence} -> {finding.advice}"
            lines += ["", head, *textwrap.wrap(body, width, initial_indent="  ", **_HANG)]
        if facts:
            for section, some in self.facts.items():
                lines += ["", section.upper(), *_tables(some)]
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Write one page of plots as PNG; needs `pip install 'mmrec[plots]'`."""
        from mmrec.audit.plots import plot

        drawn: Path = plot(self, path)
        return drawn

    def write(self, out: str | Path) -> list[Path]:
        """Write audit.md, audit.json and, where matplotlib is installed, audit.png into `out`."""
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        written = []
        for name, text in (("audit.md", self.markdown()), ("audit.json", self.to_json() + "\n")):
            with replacing(out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(out / name)
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            return written
        return [*written, self.plot(out / "audit.png")]


_HANG: dict[str, Any] = {"subsequent_indent": "  ", "break_long_words": False}


def _summary(report: Report) -> str:
    counts = {s: sum(f.severity == s for f in report.findings) for s in SEVERITIES}
    parts = ", ".join(f"{count} {severity}" for severity, count in counts.items())
    return f"{len(report.findings)} findings: {parts}."


def _plain(value: Any) -> Any:
    """Only what JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _tables(facts: Any) -> list[str]:
    """One table a group of figures; long lists (for plots) stay in the JSON alone."""
    lines: list[str] = []
    single = {k: v for k, v in facts.items() if not isinstance(v, dict) and _short(v)}
    if single:
        lines += _table(["what", "figure"], [[k, _text(v)] for k, v in single.items()])
    for name, group in facts.items():
        if not isinstance(group, dict):
            continue
        rows = {k: v for k, v in group.items() if _short(v)}
        nested = {k: v for k, v in rows.items() if isinstance(v, dict) and not _measured(v)}
        if nested:
            columns = list(dict.fromkeys(c for v in nested.values() for c in v if _short(v[c])))
            if len(columns) > len(nested):  # the longer side goes down the page
                body = [[c, *(_text(v.get(c)) for v in nested.values())] for c in columns]
                lines += _table([name, *nested], body)
            else:
                body = [[k, *(_text(v.get(c)) for c in columns)] for k, v in nested.items()]
                lines += _table([name, *columns], body)
        flat = {k: v for k, v in rows.items() if k not in nested}
        if flat:
            lines += _table([name, "figure"], [[k, _text(v)] for k, v in flat.items()])
    return lines


def _short(value: Any) -> bool:
    return not isinstance(value, (list, tuple)) or 0 < len(value) <= 4


def _measured(value: Any) -> bool:
    return isinstance(value, dict) and {"value", "low", "high"} <= set(value)


def _text(value: Any) -> str:
    if _measured(value):
        return f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    return str(value)


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(row) for row in body]
    return [f"| {line} |" for line in lines] + [""]
