"""Page of the metrics: table of the built-in ones, and how to write one."""

from __future__ import annotations

from docs.generate.markdown import make_page, make_table
from edgekit.cli.render.metrics import format_margin
from edgekit.metrics.registry import describe_metric, list_metrics

INTRODUCTION = """
`--metric NAME` or `metric` in `[data]` of [edgekit.toml](edgekit-toml.md) names the metric that
decides; `[gate.guards]` names further ones that a candidate must keep. `edgekit metrics` lists them
all, also those of plugins. The margin is the largest loss that counts as none: points of a share,
percent of the value of the original, or a number in the unit of the metric. `max_drop` in `[gate]`
replaces it.
"""

OWN = """
## Your own metric

A function of yours is named `module:function`; the module lies in the folder of the project or is
installed. It gets two dicts of arrays, `outputs` by the names of the model's outputs and `targets`
(the main one is `y`), with the samples on the first axis. It returns one number for each sample,
and the metric is their mean.

```python title="examples/digits/own_metrics.py"
import numpy as np


def rank(outputs, targets):
    own = np.take_along_axis(outputs["logits"], targets["y"][:, None], axis=1)
    return 1 + (outputs["logits"] > own).sum(axis=1)


rank.lower_is_better = True
rank.title = "rank of the right class"
```

```bash
edgekit build -C examples/digits --metric own_metrics:rank --step quantize-static
```

In edgekit.toml it is `metric = "own_metrics:rank"`, and as a guard:

```toml
[gate.guards]
"own_metrics:rank" = 2.0
```

Higher is better unless an attribute of the function says otherwise:

| attribute | meaning | default |
| --- | --- | --- |
| `lower_is_better` | `True`: lower is better (or `higher_is_better = False`) | `False` |
| `title` | name in reports | name of the function |
| `is_share` | values are from 0 to 1, shown in percent; losses are in points | `False` |
| `margin` | margin in points of a share, or in the unit of the metric | 1 point of a share |
| `relative_margin` | margin in percent of the value of the original | 1 %, unless a share |
| `uses_targets` | `False`: the values depend on the outputs alone | `True` |

The function runs on this machine, also for a device, which returns the outputs (after
`[postprocess]`, if there is one). With `metric_on_device = true` in `[data]` the device gets the
files of the function and runs it itself, with one sample at a time, so that only one number for
each sample comes back: for large outputs and slow links. There it may import numpy, the standard
library and modules of the project folder, and it runs with the rights of the user that logs in.

The function is called with a few samples at a time, so each number must
depend on its own sample alone. Where the arrays of these samples differ in shape (boxes, texts,
targets with `y_length`), there is a list of arrays instead of one. Texts are arrays of code points.
Values are computed again when a file of the function has changed, or one in the project folder that
it imports.

The original must be significantly better than the same outputs with the targets of other samples,
for which the function is called once more; else the value is meaningless and no candidate passes.

A metric of all samples together, such as a correlation, is a class:

```python title="examples/digits/own_metrics_of_all.py"
import numpy as np


class Agreement:  # Cohen's kappa
    def __init__(self):
        self.counts = np.zeros((10, 10))

    def update(self, outputs, targets):
        np.add.at(self.counts, (targets["y"], outputs["logits"].argmax(axis=1)), 1)

    def value(self):
        shares = self.counts / self.counts.sum()
        chance = (shares.sum(axis=0) * shares.sum(axis=1)).sum()
        return (np.trace(shares) - chance) / (1 - chance)


Agreement.is_share = True
```

```bash
edgekit build -C examples/digits --metric own_metrics_of_all:Agreement --step quantize-static
```

The confidence interval is that of the jackknife: 40 more instances each get all samples but one
block of them, so `update` is called 41 times as often, and an interrupted scoring starts again.
There are no values for slices.

A bundle remembers the name. `edgekit bench BUNDLE HOST --eval EVAL` imports the module again, from
the current folder (`-C DIR`) or the installed packages; `--metric` names another metric.
"""


def render() -> str:
    """Render the page."""
    facts = [describe_metric(metric) for metric in list_metrics()]
    rows = [
        [
            f"`{each.name}`",
            each.title,
            "higher" if each.higher_is_better else "lower",
            format_margin(each),
            each.target,
        ]
        for each in facts
    ]
    rows.append(["`module:function`", "[your own](#your-own-metric)", "either", "1 %", "any"])
    head = ["metric", "title", "better", "margin", "target `y` of a sample"]
    return make_page("Metrics", INTRODUCTION, make_table(head, rows), OWN)
