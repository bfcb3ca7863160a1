"""What a study found, in sentences that say how sure it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from svgd_monai.report.analysis import SHARES, Pair, Reach, reference_method
from svgd_monai.report.evidence import Evidence
from svgd_monai.report.pair_tables import verdict
from svgd_monai.report.power import DIFFERENCES, MOST_SEEDS, detectable_difference
from svgd_monai.report.significance import LEVEL
from svgd_monai.report.study import Study
from svgd_monai.report.text import interval, label_count, listed, number, one_line, p_text, percent, span
from svgd_monai.words import count

#: Methods named in a sentence.
_NAMED = 8


def composition(study: Study) -> str:
    """What a study consists of."""
    runs = study.runs
    names = sorted(
        {one_line(d.get("name", "")) for run in runs if isinstance(d := run.record.get("dataset"), dict)} - {""}
    )
    seeds = {len(each) for each in study.methods.values()}
    tests = {len(run.cases("test")) for run in runs} - {0}
    methods = count(len(study.queried), "method") + (" and the full data" if study.full_data else "")
    parts = [methods, count(len(runs), "finished run")]
    if seeds:
        parts.append(f"{span(seeds)} seed{'s' * (seeds != {1})} per method")
    if tests:
        parts.append(f"{span(tests)} test cases")
    return f"{', '.join(parts)}{'; data: ' + ', '.join(names) if names else ''}."


def against_reference(evidence: Evidence) -> Iterator[str]:
    """The main result, with what cannot be said."""
    analysis = evidence.analysis
    reference = reference_method(evidence.study)
    tested = [pair for pair in analysis.pairs if not math.isnan(pair.p_holm)]
    if not tested:
        yield "No two methods could be compared by a test; see the notes."
        return
    yield _count_significant(tested)
    if reference is None:
        return
    against = [analysis.pair(name, reference) for name in analysis.by_area if name != reference]
    against = [pair for pair in against if not math.isnan(pair.p_holm)]
    better, worse = ([p for p in against if p.significant and p.test.mean * sign > 0] for sign in (1, -1))
    for word, pairs in (("larger", better), ("smaller", worse)):
        if pairs:
            sizes = "; ".join(
                f"{p.a} by {number(abs(p.test.mean))} (p {_is(p.p_holm)}, n = {p.test.seeds}, {_labels(p)})"
                for p in pairs
            )
            yield f"Significantly {word} area than {reference}: {sizes}."
    unsure = [p for p in against if not p.significant]
    if unsure:
        widest = max(max(abs(p.test.low), abs(p.test.high)) for p in unsure)
        yield (
            f"Not significantly different from {reference}: {listed([p.a for p in unsure], _NAMED)}. That does not "
            f"show them to be equal: their 95 % intervals reach differences of up to {number(widest)} Dice."
        )
        yield from _power(evidence)


def _power(evidence: Evidence) -> Iterator[str]:
    """What the study could have found, from the pooled spread."""
    if evidence.powers:
        least, *others = [power for power in evidence.powers if power.method is None]
        difference, needed = DIFFERENCES[1], least.needed[1]
        seeds = f"more than {MOST_SEEDS}" if needed is None else str(needed)
        most = [f", with n = {power.seeds} one of {number(power.detectable)}," for power in others[-1:]]
        yield (
            f"With n = {least.seeds} seeds a paired t test finds a true difference of {number(least.detectable)}"
            f"{''.join(most)} in four of five studies; finding one of {difference:g} as often takes {seeds} seeds (at "
            f"the pooled spread between seeds, without correction{_corrected(evidence)}). Fix the number of seeds "
            "before you look: seeds that are added until a difference shows make false alarms likelier."
        )


def _corrected(evidence: Evidence) -> str:
    """What the difference must be for the least p of all pairs to survive the correction, at the most seeds."""
    tested = sum(not math.isnan(pair.p_holm) for pair in evidence.analysis.pairs)
    if tested < 2:
        return ""
    power = [power for power in evidence.powers if power.method is None][-1]
    needed = detectable_difference(power.spread, power.seeds, LEVEL / tested)
    return f"; it must be {number(needed)} to survive it among {tested} pairs as often, with n = {power.seeds}"


def _count_significant(tested: Sequence[Pair]) -> str:
    sure, total = sum(pair.significant for pair in tested), len(tested)
    how = "in the area under the budget curve (paired t test at 5 %, with Holm's correction over all pairs)"
    if not sure:
        pairs = "The one pair of methods does not differ" if total == 1 else f"None of the {total} pairs differs"
        return f"{pairs} significantly {how}."
    others = count(total - sure, "difference is", "differences are")
    rest = f"; the other {others} not significant" if total > sure else ""
    verb = "differs" if sure == 1 else "differ"
    return f"Of {count(total, 'pair')} of methods, {sure} {verb} significantly {how}{rest}."


def headline_labels(evidence: Evidence) -> Iterator[str]:
    """The paper's headline figure, for the greatest share that any method reaches."""
    reach, reference = evidence.analysis.reach, reference_method(evidence.study)
    missed = None
    for share in reversed(SHARES):
        every = {method: reach[method, share] for method in evidence.analysis.by_area if (method, share) in reach}
        reached = {method: r for method, r in every.items() if math.isfinite(r.labels)}
        if not reached:
            missed = share
            continue
        if len({round(r.target, 6) for r in every.values()}) > 1:
            targets = [f"{method} {number(r.target)} (n = {r.seeds})" for method, r in every.items()]
            yield (
                f"The labels to reach {percent(share)} of the full-data Dice are not ranked: the methods share other "
                "seeds with the full data, or are measured by other full data, and so have other targets: "
                f"{listed(targets, _NAMED)}."
            )
            return
        least = min(r.labels for r in reached.values())
        first = [name for name, r in reached.items() if r.labels == least]
        text = (
            f"{percent(share)} of the full-data Dice was reached with the fewest labels by {listed(first, _NAMED)} "
            f"(n = {span(reached[name].seeds for name in first)}): {reach_text(reached[first[0]])}"
        )
        if reference is not None and reference not in first:
            other = reached.get(reference)
            text += f"; {reference} {_censored(reach, reference) if other is None else 'took ' + reach_text(other)}"
        higher = f" No method reached {percent(missed)} within its labels." if missed else ""
        yield f"{text}. This describes these runs; it is not a test.{higher}"
        return
    if reach:
        yield f"No method reached {percent(SHARES[0])} of the full-data Dice within its labels."


def _censored(reach: Mapping[tuple[str, float], Reach], name: str) -> str:
    """A method that has not reached a share: not that it never would."""
    last = next((r.last for (method, _), r in reach.items() if method == name), None)
    return "could not be compared with it" if last is None else f"had not reached it within its {last:g} labels"


def pair_sentence(pair: Pair) -> str:
    """A pair's difference, how sure it is, and the verdict."""
    test = pair.test
    if math.isnan(pair.p_holm):
        return f"{pair.a} against {pair.b}: {verdict(pair)}."
    return (
        f"{pair.a} against {pair.b}: {number(test.mean, sign=True)} in area (95 % interval "
        f"{interval(test.low, test.high)}, n = {test.seeds}), p {_is(test.p_value)}, after correction "
        f"{p_text(pair.p_holm)}: {verdict(pair)}."
    )


def reach_text(reach: Reach) -> str:
    """Labels, their share of the pool, and what the validation cases add, where these are known."""
    text = label_count(reach.labels)
    if reach.pool:
        text += f" of {reach.pool} ({percent(reach.labels / reach.pool)})"
    if reach.at_the_start:
        text += ", already at its first label count (fewer may do),"
    if reach.validation:
        text += f" besides {count(reach.validation, 'validation case')}"
    return f"{text}, but only at the curve's last label count" if reach.at_the_end else text


def _labels(pair: Pair) -> str:
    """The range of labels that a pair's areas are over."""
    return "no labels in common" if pair.span is None else f"{pair.span[0]:g} to {pair.span[1]:g} labels"


def _is(p: float) -> str:
    return p_text(p) if p < 0.0001 else f"= {p_text(p)}"
