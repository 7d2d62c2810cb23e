"""Page of the passes: summary, settings and description of each."""

from __future__ import annotations

from docs.generate.markdown import make_page, make_table, to_markdown
from edgekit.compression.pass_specs import PASSES
from edgekit.compression.recipe_parser import describe_pass, format_value

INTRODUCTION = """
A pass takes a model file and writes a model file. `edgekit passes NAME` prints the text below.
`edgekit apply NAME MODEL -o OUT --set KEY=VALUE` runs one pass; `edgekit build --step
NAME:KEY=VALUE,...` runs a list of them. [By hand](../how-to/by-hand.md) has examples.
"""


def render() -> str:
    """Render the page."""
    facts = [describe_pass(name) for name in PASSES]
    rows = [
        [f"[`{f.name}`](#{f.name})", f.summary, "yes" if f.needs_calibration else "no"]
        for f in facts
    ]
    table = make_table(["pass", "effect", "needs calibration samples"], rows)
    return make_page("Passes", INTRODUCTION, table, *(_render(name) for name in PASSES))


def _render(name: str) -> str:
    facts = describe_pass(name)
    rows = [[f"`{s.name}`", s.allowed, f"`{format_value(s.default)}`"] for s in facts.settings]
    table = make_table(["setting", "value", "default"], rows) if rows else "It has no settings."
    return f"## {name}\n\n{to_markdown(facts.meaning)}\n\n{table}"
