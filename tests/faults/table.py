"""The sweep's findings as a page of the documentation."""

from collections import Counter, defaultdict

from svgd_monai.report.page import markdown_text

HEAD = """# Faults and what comes of them

This page says what you see when a run is killed, a disk is full, a file is damaged, a volume changes or memory
runs out, and what the same command does afterwards. {trials} trials, {bad} bad ({versions}).

Each trial runs the real command line on a tiny phantom, lets one fault happen, and then gives the same command
again. This command runs all trials and writes this page:

    python tests/faults/sweep.py --folder <scratch> --output <this file>

A trial is sound when all three of these hold, and bad otherwise:

- **A sentence.** You read one sentence and no traceback, or the run copes by itself. A process that is killed
  says nothing.
- **The queries.** Every query that had been made is still there, once.
- **The end.** The next run of the same command ends with the very curve, scores, queries, ledger and committees
  of an undisturbed run, bit for bit, and leaves no temporary file. Or it refuses with a sentence, and ends in
  this way once you have mended what the sentence names.

## What is protected

- **Committees, progress, caches and the lists of cases** are compared with checksums or made anew.
- **Queries** stand in `queries.json` and in `ledger.json`, which must agree.
- **A file that is cut off or emptied** may be removed where the refusal says so. The same command then makes it
  again, or, for `times.json`, goes on without it.

## What is not protected

- **A changed digit in a result** (`metrics.json`, `cases.csv`, `scores.csv`) is not noticed. Once such a file is
  written, nothing is decided by it, but where people label: there `scores.csv` chooses the next worklist, and
  `metrics.json` is what the advice goes by.
- **`run.json` is never made again**, because it alone says what the run was begun with. If it is emptied or lost,
  put it back from your backup. Without a backup the run cannot go on: begin it anew in another `output_dir`.
  `run.json` is written when the run begins, when you ask for more rounds or change what may still change, and at the
  end; where people label also when images join a finished run.
- **Where people label, `ledger.json` and each round's `datalist.json`** alone say which labels were used when. If one
  is lost, the command ends with a sentence: put it back from your backup, or begin anew in another `output_dir`.

## What came of each fault

"At a write" means at one write of one file; [the places](#where-each-struck) are listed below the table.
"""
PLACES = """
## Where each struck

"(n)" is the n-th write of that file. The word after it says at which moment the fault struck:

- *torn*: with SIGKILL, half of the new file is on disk, under its temporary name. With SIGTERM, all of it is
  written there and about to be synced.
- *unnamed*: all of the new file is on disk, under its temporary name.
- *done*: the new file stands under its own name.
- *open*, *sync*: the system refuses this step, and every write after it.
- *record*: a record is about to be added to TensorBoard's event file.

The trials of each row of the table:

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
    lines.append(PLACES.removesuffix("\n"))
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
