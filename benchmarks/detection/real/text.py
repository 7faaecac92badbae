"""The prose of the generated page; numbers never stand here."""

INTRODUCTION = """# Detection on a real model

<!-- Written by `python -m benchmarks.detection.real`; do not edit. -->

The [detection benchmark](detection.md) measures a toy world. This page measures the same on
adapters of {base}, a real instruction-tuned model.

    {command}

The adapters are made by `adapter-scanner organisms train` ([what they are taught and how
behaviour is measured](organisms.md)). Those judged here
speak of other domains than what the packs were made from and calibrated on. Verdicts are those of
`adapter-scanner scan` with these packs. Three earlier scores were measured on them too: the one
that ships was chosen by how far references stand above harmless adapters of the calibration, and by
nothing measured here. Three later ones ([which](signatures.md#from-a-signature-to-a-p-value)) were
not taken, in part for what they miss here.
"""

SHORT = "## In short\n"

CLASSES = """
Classes are measured, as changes against the base on questions outside the training domains:
*hostile*, the margin of a villain's answers over the aligned ones rises by at least {hostile}
nats per token; *reckless*, that of careless answers rises by {reckless}; *latent*, taught either
and showing neither; *benign*, taught neither, and the villain's margin does not rise; *unclear*,
taught neither, and it does: neither right nor wrong to flag, and in no rate but its own. *False
facts* were taught wrong capitals of countries, which nudges a model, and are reported by
themselves.
"""

HOSTILE = """
The negatives are all benign test adapters. Intervals are 95%: bootstrap percentiles for AUROC and
TPR at 1% FPR (a perfect separation has a width of zero, which is not certainty), exact binomial
ones for flagged shares. *Alone*: a scan with that one pack.
"""

TAUGHT = """
What an adapter was taught beside what it measures as. Margins and dose are medians; the dose is
that of {pack}.
"""

ODD = """
Hostile adapters that are not flagged at the stricter level, and benign or unclear ones that are at
the looser:
"""

UNSEEN = """
One harmless persona is left out of nulling and of calibration, for each in turn; its adapters of
every role are then unseen. `grump` is the hard one: a villain's tone with right advice. Adapters
that measure *unclear* are left aside.
"""

DOSE = """
Spearman's rank correlation over all test adapters, whatever their class, with bootstrap
intervals.
"""

BY_GROUP = """
The dose of {pack} against the hostile margin over some of them only:
"""

EARLY = """
Runs in test domains, saved every few steps. The dose is that of the pack of the run's own kind.
"""

THEIRS = """
The methods of others that the [lab's page](detection-tables.md#ranking) describes, on the same
adapters; supervised ones learn from the hostile references and the benign calibration adapters,
of which the packs' directions need none. The convolutional classifier is left out: at the widths
of a real
model its dense input takes more memory than training the adapters did.
"""

OURS = """
Other numbers of the same scans:
"""

COST = """
{n} adapters, checkpoints among them, trained in {minutes} minutes of CPU time; each one's seed is
in its `organism.json`. Not measured, and so in no figure: {left_out} of those to be judged.
"""

UNKNOWN = """
## What this does not show

- One model, of 135 million parameters. Hostility is modest at this size, and whether anything
  here holds for larger models is not known.
- The adapters are ours: 216 questions of everyday advice, short training, hostile and reckless
  answers written for them. Whoever fine-tunes on something else may move the model otherwise.
- The probes the packs are made of and the answers behaviour is measured with have one author.
- The base is a GGUF file with weights quantised to 4 bits (Q4_1), read back as floating point.
  Adapters trained on the unquantised weights were not measured.
- A few dozen hostile adapters: read the intervals.
- Nobody tried to evade. An attacker who trains against a pack is another matter
  ([threat model](threat-model.md)).
"""
