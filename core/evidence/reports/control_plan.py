"""The plan of a comparison as a change control plan, in Markdown: what may be changed, how a change is checked and by
which margins, and what it may do, in the three parts that the FDA asks of a predetermined change control plan
("Marketing Submission Recommendations for a Predetermined Change Control Plan for Artificial Intelligence-Enabled
Device Software Functions", final guidance, December 2024, issued again August 2025). The last part names where the same
stands in a bank's file of model risk (Federal Reserve and OCC, SR 11-7, 2011)."""

from __future__ import annotations

from featherweight.core.evidence import metrics
from featherweight.core.evidence.reports.templates_env import markdown_text
from featherweight.core.record.cases import CaseSet
from featherweight.core.record.plan import Plan
from featherweight.core.terminal import counted


def render_control_plan(plan: Plan, sha256: str) -> str:
    """The whole document; every text from outside is escaped, so that it stays text."""
    lines = [
        f"# Change control plan: {markdown_text(plan.recipe)}",
        "",
        f"Written by Featherweight on {markdown_text(plan.created)}, before any test case was run for it. The plan's "
        f"sha256 is `{sha256}`; the evidence of a change that follows it keeps this digest, and says in its first "
        "lines where what was run differs from it, or where test cases had been used before it was written. In "
        "brackets stands what its owner must add, because no program knows it.",
        "",
        "## 1. Description of modifications",
        "",
        "The program of the model is replaced by one that is made from it by these steps, in this order. Where several "
        "values are listed, each is tried and one is chosen on the validation cases:",
        "",
        *(f"{place}. {markdown_text(step)}" for place, step in enumerate(plan.steps or ("(no step)",), 1)),
        "",
        f"It runs on: {markdown_text(', '.join(plan.backends))}. The inputs, the question that is answered and the "
        "cases for which the model is meant stay as they are. A change of these is not covered.",
        "",
        "- [The device or model, its intended use and users, and the version that is changed]",
        "- [Whether the change goes to all sites at once, and who carries it out]",
        "",
        "## 2. Modification protocol",
        "",
        "### Data",
        "",
        "| cases | number | positive | sha256 of inputs and labels |",
        "|---|---|---|---|",
        *(_cases(split, found) for split, found in plan.splits.items()),
        "",
        f"No input was in two of these when the plan was written, but for what the recipe states as known. The test "
        f"cases had {counted(plan.earlier_uses, 'earlier uses')} on record then. They are run once, after the choice, "
        "for the chosen candidate alone, and that they are is written down before.",
        "",
        "- [Where the data come from, the reference standard, and why they stand for the intended population]",
        "",
        "### Acceptance criteria",
        "",
        "| criterion | margin | why |",
        "|---|---|---|",
        *(
            f"| {markdown_text(margin.title)} | {_margin(name, margin.limit)} | {markdown_text(margin.reason)} |"
            for name, margin in plan.limits.items()
        ),
        "",
        "All criteria must be kept, on the validation cases and on the test cases. A criterion on a loss is kept when "
        "the one-sided 95% bound of the loss, paired on the same cases, is inside the margin: too few cases count "
        f"against the change. The case that was not seen is taken as: {markdown_text(plan.unseen_case)}. "
        f"{_settings(plan)}Random seed: {plan.seed}.",
        "",
        "### If a criterion is not kept",
        "",
        "Nothing is sealed and the program in use stays. By how much the test cases missed is not told, so that no "
        "later candidate is tuned on them. Another candidate needs another use of the test cases, which its evidence "
        "shows, or new test cases.",
        "",
        "### Update procedure",
        "",
        "The change is sealed as one folder with digests of all files; each site verifies it with `featherweight "
        "artifact verify` before it is used, which also repeats the reference decisions on the site's own machine. The "
        "way back is the earlier folder.",
        "",
        "- [How users are told, and what is monitored after the change]",
        "",
        "## 3. Impact assessment",
        "",
        "- Benefits that are sought: shorter time, smaller size, less energy; the evidence states each with how it was "
        "measured.",
        "- Risks: cases newly missed, new false alarms, probabilities that no longer mean what they say, and groups of "
        "cases that lose while the whole does not. The evidence counts the first two case by case and states the "
        "others by group.",
        "- Risks that the criteria above do not cover: "
        + (", ".join(_not_limited(plan)) or "of the figures of the table, none")
        + ".",
        "- [How each risk is mitigated, and why the benefits outweigh what is left]",
        "- [Changes that were made before under this plan, and their loss together: the evidence of a chain states it]",
        "",
        "## Where this stands in a file of model risk (SR 11-7)",
        "",
        "| element | here |",
        "|---|---|",
        "| Model development and implementation | part 1; the recipe and its digest in the sealed folder |",
        "| Validation: conceptual soundness | [owner]; the margins and their reasons in part 2 |",
        "| Validation: outcomes analysis | evidence.html and evidence.json, on the test cases of part 2 |",
        "| Validation: ongoing monitoring | [owner]; `featherweight artifact verify` at each site |",
        "| Effective challenge | the record of uses of the test cases, and the page of the cases that changed |",
        "| Governance and inventory | the digests of plan, recipe and artifact; [owner, approver, dates] |",
    ]
    return "\n".join(lines) + "\n"


def _cases(split: str, found: CaseSet) -> str:
    # Earlier plans say 0 of training cases, which nobody counted.
    uncounted = found.positives is None or split == "training"
    positives = "not counted" if uncounted else f"{found.positives:,}"
    return f"| {split} | {found.cases:,} | {positives} | `{found.sha256}` |"


def _margin(name: str, limit: float) -> str:
    known = metrics.limits().get(name)
    return f"{limit:g}" if known is None else known[1].describe(limit)


def _settings(plan: Plan) -> str:
    """What the limits rest on beside their margins."""
    found, groups = dict(plan.settings), f"{metrics.GROUPS}.columns"
    columns, lines = found.pop(groups, ()), []
    if isinstance(columns, tuple) and columns:
        lines.append(f"Criteria in groups hold in those of: {', '.join(columns)}. ")
    elif any(name.startswith(f"{metrics.GROUPS}.") for name in plan.limits):
        lines.append("Criteria in groups hold in those of every column that the data has. ")
    if "prevalence" in found:
        lines.append(f"Predictive values are judged at a share of positive cases of {found.pop('prevalence')}. ")
    lines += [f"{name}: {value}. " for name, value in found.items()]
    return markdown_text("".join(lines)) + " " * bool(lines)


def _not_limited(plan: Plan) -> list[str]:
    return [
        f"{limit.title[:1].lower()}{limit.title[1:]}"
        for name, (_, limit) in metrics.limits().items()
        if name not in plan.limits and limit.kind == "loss"
    ]
