"""The sweep's findings as a page of the documentation."""

from collections import Counter, defaultdict

from svgd_monai.report.page import markdown_text

HEAD = """# Faults and what comes of them

Written by `python tests/faults/sweep.py --folder <scratch> --output <this file>`: the real command line on a tiny
phantom, one fault a trial, then the same command again. {trials} trials, {bad} bad ({versions}).

A trial is sound when the user reads one sentence and no traceback (or the run copes by itself), every query that had
been made is still there, once, and the next run of the same command ends with the very curve, scores, queries, ledger
and committees of an undisturbed run, bit for bit, with no temporary file left; or it refuses with a sentence, and does
so once that is mended. A process that is killed says nothing.

"at a write (n)" is the n-th write of that file. *torn*: half of the new file is on disk, under its temporary name;
*unnamed*: all of it, under its temporary name; *done*: it stands under its own; *open*, *sync*: what the system
refuses, and everything after it.

What is not protected: another digit in a result (`metrics.json`, `cases.csv`, `scores.csv`), by which nothing is
decided once it is written. Committees, progress, caches and the lists of cases are held against checksums or made
anew; the queries stand in `queries.json` and in `ledger.json`, which must agree. A file that is cut off or emptied may
be removed where the refusal says so: the same command makes it again (`times.json`: goes on without it).

What is never made again is `run.json`: it alone says what the run was begun with. An emptied or lost one is put back
from a backup of it (it is written when the run begins, when more rounds are asked for, and at the end); without one the
run cannot go on, and is begun anew in another `output_dir`.
"""


def write_table(path, findings, versions):
    """Write the page.

    Args:
        path: the file.
        findings: of all trials.
        versions: of what they ran with.
    """
    rows = defaultdict(list)
    for finding in findings:
        rows[finding.fault].append(finding)
    bad = sum(not finding.sound for finding in findings)
    lines = [HEAD.format(trials=len(findings), bad=bad, versions=versions)]
    lines += [
        "| fault | trials | sound | what the user sees, times | the same command then, times |",
        "|---|---|---|---|---|",
    ]
    for fault, found in rows.items():
        cells = [
            fault,
            str(len(found)),
            str(sum(finding.sound for finding in found)),
            _counted(found, "end"),
            _counted(found, "next"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("\n## Where each struck\n")
    for fault, found in rows.items():
        places = ", ".join(markdown_text(finding.place) for finding in found)
        lines.append(f"- **{fault}**: {places}.")
    troubled = [finding for finding in findings if not finding.sound]
    if troubled:
        lines.append("\n## Not sound\n")
        lines += [f"- {f.fault}, {markdown_text(f.place)}: {markdown_text(f.trouble[:300])}" for f in troubled]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _counted(findings, field):
    counts = Counter(getattr(finding, field) for finding in findings)
    counts.pop("", None)
    return (
        "<br>".join(f"{markdown_text(words)} ({count})" for words, count in counts.most_common())
        or "nothing: it was not running"
    )
