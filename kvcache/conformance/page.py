"""The report as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from typing import Final

from kvcache.conformance.report import Report
from kvcache.conformance.run import Finding

_STYLE: Final = """
:root { color-scheme: light dark; --edge: #8884; --soft: #8881; --good: #18794e; --bad: #c62a2f; --odd: #946800;
  --none: #7a7f87 }
@media (prefers-color-scheme: dark) { :root { --good: #4cc38a; --bad: #ff6369; --odd: #f1a10d; --none: #9ba1a6 } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
.judgement { border-left: .4rem solid var(--odd); background: var(--soft); padding: .8rem 1rem; margin: 1rem 0;
  font-size: 1.1rem }
.judgement.fit { border-color: var(--good) } .judgement.unfit { border-color: var(--bad) }
.counts { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; padding: 0; list-style: none }
.counts b { font-size: 1.3rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top;
  padding: .35rem .6rem; border-top: 1px solid var(--edge) }
td:nth-child(2) { width: 62% }
td.number { text-align: right; font-variant-numeric: tabular-nums } td.outcome { white-space: nowrap;
  font-weight: 600 }
.kept { color: var(--good) } .broken { color: var(--bad) } .undecided { color: var(--odd) }
.not-offered { color: var(--none) }
code, pre { font: 13px/1.45 ui-monospace, monospace } pre { white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--soft); border-left: .2rem solid var(--bad); margin: .4rem 0 0; padding: .5rem .7rem }
footer { color: var(--none); margin-top: 2rem }
"""

_MEANING: Final = {
    "kept": "was put to the test and held",
    "broken": "was made and did not hold",
    "undecided": "could not be tested to its end",
    "not offered": "is not made; where something can be refused, the refusal was tested",
}


def as_page(report: Report) -> str:
    """The page."""
    tone = "fit" if report.is_fit else "unfit" if report.counts["broken"] else "undecided"
    broken = [finding for finding in report.findings if finding.outcome in ("broken", "undecided")]
    others = [finding for finding in report.findings if finding not in broken]
    counts = "".join(
        f'<li title="{escape(meaning)}"><b class="{_class(name)}">{report.counts[name]}</b> {name}</li>'
        for name, meaning in _MEANING.items()
    )
    sections = [
        _table("Promises that are not kept, or were not decided", broken) if broken else "",
        _table("Promises that are kept, or not offered", others) if others else "",
    ]
    facts = {
        "URL": report.url,
        "date": report.began,
        "seed": report.seed,
        "requests": f"{report.requests:,} of at most {report.most_requests:,}",
        "time": f"{report.seconds:.1f} s",
    }
    again = f"kvcache conformance '{report.url}' --seed {report.seed}"
    if report.lost is not None:
        facts["lost on purpose"] = ", ".join(f"{count} {what}" for what, count in report.lost.items()) or "nothing"
        again += " --through-faults"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.url)}: {"fit" if report.is_fit else "not fit"}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Can <code>{escape(report.url)}</code> be trusted?</h1>
<p class="judgement {tone}">{escape(report.judgement)}</p>
<ul class="counts">{counts}</ul>
{"".join(sections)}
<h2>What the store says of itself</h2>
{_facts(asdict(report.capabilities))}
<h2>This examination</h2>
{_facts(facts)}
<h2>Versions</h2>
{_facts(report.versions)}
<footer>To see it again: <code>{escape(again)}</code></footer>
</body>
</html>
"""


def _table(title: str, findings: list[Finding]) -> str:
    rows = "".join(
        f'<tr><td class="outcome {_class(finding.outcome)}">{finding.outcome}</td>'
        f"<td>{escape(finding.check.promise)}{_evidence(finding)}</td>"
        f"<td><code>{escape(finding.check.name)}</code></td>"
        f'<td class="number">{finding.requests}</td><td class="number">{finding.seconds:.2f}</td></tr>\n'
        for finding in findings
    )
    head = "<tr><th>outcome</th><th>promise</th><th>check</th><th>requests</th><th>seconds</th></tr>"
    return f'<h2>{escape(title)}</h2>\n<div class="scroll"><table>\n{head}\n{rows}</table></div>\n'


def _evidence(finding: Finding) -> str:
    return f"<pre>{escape(finding.evidence)}</pre>" if finding.evidence else ""


def _facts(facts: object) -> str:
    assert isinstance(facts, dict)
    rows = "".join(f"<tr><th>{escape(str(name))}</th><td>{escape(str(it))}</td></tr>" for name, it in facts.items())
    return f'<div class="scroll"><table>{rows}</table></div>'


def _class(outcome: str) -> str:
    return outcome.replace(" ", "-")
