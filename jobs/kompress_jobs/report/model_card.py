"""The model card: Markdown with the front matter of the Hugging Face hub (Mitchell et al., Model Cards for Model Reporting, 2019)."""

from kompress_api.goals import BASELINE_PREFIX
from kompress_jobs.report.figures import SHOWN, Report, unit
from kompress_jobs.report.page import TITLES, chance, templates


def render(report: Report) -> str:
    """The card of the final stage's model."""
    summary = report.summary()
    final = report.stage(report.final)
    return (
        templates()
        .get_template("card.md.j2")
        .render(
            report=report,
            steps=[f"{stage.name} ({stage.kind})" for stage in report.stages],
            samples=final.details.get("samples") if final else None,
            rows=[
                (name, summary[name], final.interval(name) if final else None, summary.get(BASELINE_PREFIX + name))
                for name in SHOWN
                if name in summary
            ],
            change=report.accuracy_change(),
            title=TITLES[report.judged_by],
            comparison=report.comparisons.get(report.final),
            verdicts=list(zip(report.goals, report.evidence, strict=True)),
            chance=chance,
            classes=bool(report.class_changes()),
            worse=[f"{c.label} ({c.before:.3f} → {c.after:.3f})" for c in report.class_changes() if c.certain and c.after < c.before],
            unit=unit,
        )
    )
