"""Pairs that are almost the same, as findings: across splits, which stops, and within."""

import numpy as np

from litlab.data.leakage.exact import in_words
from litlab.data.leakage.report import KEPT, Finding, many
from litlab.data.leakage.samples import SampleDigests
from litlab.data.spec import SPLITS, Array


def near_duplicates(samples: SampleDigests, pairs: Array, what: str) -> list[Finding]:
    """Report pairs `(P, 2)` of sample numbers; those with the very same input are left out.

    Args:
        samples: All of them.
        pairs: Numbers in the order that the samples were added.
        what: What makes them alike, in words.
    """
    inputs = samples.inputs
    pairs = pairs[(inputs[pairs[:, 0]] != inputs[pairs[:, 1]]).any(1)]
    # The earlier split first, the earlier place within one.
    keys = np.lexsort((samples.index[pairs], samples.split[pairs]), axis=1)
    pairs = np.take_along_axis(pairs, keys, 1)
    split = samples.split[pairs].astype(np.int64)
    across = split[:, 0] != split[:, 1]
    findings = []
    for stops, some in ((True, pairs[across]), (False, pairs[~across])):
        if not len(some):
            continue
        counts: dict[str, int] = {}
        for first, second in np.unique(samples.split[some], axis=0).tolist():
            here = (samples.split[some] == (first, second)).all(1)
            name = f"{SPLITS[first]}-{SPLITS[second]}" if stops else SPLITS[first]
            counts[name] = len(np.unique(some[here, 1]))
        total = len(np.unique(some[:, 1]))
        order = np.argsort(samples.index[some[:, 1]], kind="stable")[:KEPT]
        shown = in_words(counts) if stops else ", ".join(f"{n} in {s}" for s, n in counts.items())
        where = "another split" if stops else "the same split"
        findings.append(
            Finding(
                check="near_duplicates",
                stops=stops,
                count=total,
                counts=counts,
                message=f"{many(total, 'sample', 'samples')} {what} a sample of {where}: {shown}",
                pairs=tuple((samples.place(int(a)), samples.place(int(b))) for a, b in some[order]),
                fix="drop them from the source" if stops else "",
            )
        )
    return findings
