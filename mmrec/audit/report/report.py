"""What an audit says: findings, the facts that they rest on, and both as text, JSON and plots."""

import json
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mmrec.audit.facts import Facts
from mmrec.audit.findings import MEANING, SEVERITIES, Finding, Name
from mmrec.audit.report.sentences import explain
from mmrec.audit.report.tables import plain, tables
from mmrec.io.files import replacing


@dataclass(frozen=True)
class Report:
    """The outcome of an audit.

    Attributes:
        root: the directory that was audited.
        findings: the most severe first.
        facts: all figures, by check.
    """

    root: str
    findings: tuple[Finding, ...]
    facts: Facts

    @property
    def serious(self) -> tuple[Finding, ...]:
        """Findings that make an AUC wrong or break training."""
        return tuple(finding for finding in self.findings if finding.severity == "serious")

    def named(self, name: Name) -> tuple[Finding, ...]:
        """All findings of this name."""
        return tuple(finding for finding in self.findings if finding.name == name)

    @property
    def summary(self) -> str:
        """How many findings there are."""
        times = Counter(finding.severity for finding in self.findings)
        counts = ", ".join(f"{times[severity]} {severity}" for severity in SEVERITIES)
        return f"{len(self.findings)} findings: {counts}."

    def headlines(self) -> str:
        """The serious findings, a line each, and how many others there are."""
        lines = [f"audit, serious: {' '.join(explain(finding))}" for finding in self.serious]
        others = len(self.findings) - len(self.serious)
        return "\n".join([*lines, f"audit: {len(lines)} serious findings, {others} others"])

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Heading and tables of each check, those of a label under its name where it has others."""
        several = len(self.facts.tasks) > 1
        for name, facts in vars(self.facts).items():
            if name != "tasks":
                yield name, tables(facts)
                continue
            for label, task in self.facts.tasks.items():
                for check, some in vars(task).items():
                    lines = tables(some)
                    if lines and (several or check != "standard"):  # of one label: the audit's own
                        yield (f"{check}, label {label}" if several else check), lines

    def to_json(self) -> str:
        """The whole report; NaN and infinity become null."""
        names = ("sentence", "advice")
        findings = [vars(f) | dict(zip(names, explain(f), strict=True)) for f in self.findings]
        content = {"root": self.root, "findings": findings, "facts": self.facts}
        return json.dumps(plain(content), indent=1, allow_nan=False)

    def markdown(self) -> str:
        """The findings, then the facts as tables."""
        lines = [f"# Audit of `{Path(self.root).name or self.root}`", "", self.summary, ""]
        for severity in SEVERITIES:
            some = [finding for finding in self.findings if finding.severity == severity]
            if some:
                lines += [f"## {severity.capitalize()}: {MEANING[severity]}", ""]
                words = ((finding.name, *explain(finding)) for finding in some)
                lines += [f"- **{name}.** {what} *{advice}*" for name, what, advice in words]
                lines.append("")
        for section, facts in self.sections():
            lines += [f"## Facts: {section}", "", *facts]
        return "\n".join(lines).rstrip() + "\n"

    def terminal(self, *, width: int = 100, facts: bool = False) -> str:
        """The findings as plain text; `facts=True` adds the tables."""
        wrap = textwrap.TextWrapper(
            width, initial_indent="  ", subsequent_indent="  ", break_long_words=False
        )
        lines = [self.summary]
        for finding in self.findings:
            lines += ["", f"{finding.severity.upper():8}{finding.name}"]
            lines += wrap.wrap(" -> ".join(explain(finding)))
        for section, some in self.sections() if facts else ():
            lines += ["", section.upper(), *some]
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Write one page of plots as PNG; needs `pip install 'mmrec[plots]'`."""
        from mmrec.audit.report.plots import plot

        title = f"Audit of {Path(self.root).name or self.root}. {self.summary}"
        return plot(self.facts, path, title=title)

    def write(self, out: str | Path) -> list[Path]:
        """Write audit.md, audit.json and, where matplotlib is installed, audit.png into `out`."""
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        for name, text in (("audit.md", self.markdown()), ("audit.json", self.to_json() + "\n")):
            with replacing(out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        plots = [self.plot(out / "audit.png")] if find_spec("matplotlib") else []
        return [out / "audit.md", out / "audit.json", *plots]
