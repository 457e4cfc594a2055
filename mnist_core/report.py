"""An evaluation as files: ``evaluation.json`` for programs, plots for slides, and ``report.html`` with all of it.

The page stands alone: style and images are inside, it loads nothing and runs no script, and all text is escaped.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import PurePath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.evaluation import Evaluation
from mnist_core.plots import plot_confusion, plot_mistakes, plot_reliability, plot_samples, plot_training_curves

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --card: #f6f8fa; --page: #fff }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #f0f6fc; --soft: #9198a1; --line: #3d444d; --card: #151b23; --page: #0d1117 }
  .grid img { border: 0; filter: invert(.94) hue-rotate(180deg) }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 80rem; padding: 2rem clamp(1rem, 4vw, 3rem); color: var(--ink);
  background: var(--page); font: 1rem/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2 } h2 { margin: 0 0 .5rem; font-size: 1.15rem }
section { padding-top: 2.2rem; break-inside: avoid }
.columns { columns: 26rem; column-gap: 2rem }
.grid { display: grid; gap: 1.5rem 2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
.grid section { padding: 0 } .grid section:nth-child(odd) { grid-column: 1 / -1 }
.tiles { display: grid; gap: 1rem; grid-template-columns: repeat(4, 1fr); margin-top: 1.5rem }
.tiles div { padding: .8rem 1.1rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem }
.tiles b { display: block; font-size: 1.7rem; line-height: 1.3 } .tiles span { color: var(--soft) }
img { display: block; width: 100%; height: auto; padding: .6rem; background: #fff; border: 1px solid var(--line);
  border-radius: .6rem }
.wide { overflow-x: auto }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { font-weight: 600 } thead th { color: var(--soft) } tfoot td { font-weight: 600 }
.numbers th, .numbers td { text-align: right } .facts th { width: 40%; font-weight: 400; color: var(--soft) }
.facts td { overflow-wrap: anywhere }
pre { margin: 0; padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  white-space: pre-wrap; overflow-wrap: anywhere }
@media (max-width: 40rem) {
  .tiles { grid-template-columns: 1fr 1fr; gap: .6rem }
  th, td { padding: .3rem .25rem } .numbers { font-size: .875rem } .tiles b { font-size: 1.4rem }
  img { padding: .2rem }
}
@media print {
  @page { margin: 14mm }
  body { max-width: none; padding: 0; font-size: 9pt } section { padding-top: 1.2rem }
  img { break-inside: avoid; padding: 0; border: 0 } .columns { columns: 2 }
  .grid { grid-template-columns: 1fr 1fr; gap: 1rem }
}
"""


def evaluation_files(
    evaluation: Evaluation,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    probabilities: npt.NDArray[np.float32],
    *,
    model: str,
    dataset: Mapping[str, Any],
    tables: Mapping[str, Mapping[str, Any]],
    command: str,
    history: Sequence[Mapping[str, Any]] = (),
    best_epoch: int | None = None,
) -> dict[str, bytes]:
    """Make the files that go with an evaluation.

    Args:
        evaluation: The metrics.
        images: The evaluated images: uint8 (N, 28, 28), N at least 1.
        labels: uint8 (N,).
        probabilities: What the model said: float32 (N, 10).
        model: What to call the model: ``mnist/3``.
        dataset: What was evaluated on: ``name``, ``split``, ``sha256``.
        tables: For the page: heading to names and values, such as the configuration.
        command: For the page: the command line that does this again.
        history: One report an epoch, see ``plot_training_curves``; no curves if it is empty.
        best_epoch: The epoch to mark in the curves, the one that is published.

    Returns:
        File name to content: ``evaluation.json``, ``report.html`` and ``plots/*.png``.
    """
    plots: dict[str, bytes] = {}
    if history:
        plots["plots/training-curves.png"] = plot_training_curves(history, best_epoch)
    plots["plots/confusion-matrix.png"] = plot_confusion(evaluation)
    plots["plots/mistakes.png"] = plot_mistakes(images, labels, probabilities)
    plots["plots/reliability.png"] = plot_reliability(probabilities, labels)
    plots["plots/samples.png"] = plot_samples(images, labels, probabilities)
    record = {"model": model, "dataset": dict(dataset), **evaluation.to_dict(), "history": [dict(e) for e in history]}
    title = f"{model} on {dataset['name']} ({dataset['split']})"
    page = render_report(title, evaluation, plots, tables, command)
    return {
        "evaluation.json": json.dumps(record, allow_nan=False).encode() + b"\n",
        "report.html": page.encode(),
        **plots,
    }


def render_report(
    title: str,
    evaluation: Evaluation,
    plots: Mapping[str, bytes],
    tables: Mapping[str, Mapping[str, Any]],
    command: str,
) -> str:
    """Render the page.

    Args:
        title: Its heading.
        evaluation: The metrics.
        plots: File name to PNG bytes; what a plot shows, for those who cannot see it, is its file name.
        tables: Heading to names and values.
        command: The command line that does this again.

    Returns:
        A whole HTML document.
    """
    pictures = "".join(
        f'<img alt="{escape(PurePath(name).stem.replace("-", " "))}" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}">\n'
        for name, content in plots.items()
    )
    facts = "".join(_render_facts(heading, values) for heading, values in tables.items() if values)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{_render_tiles(evaluation)}
<section class="grid">
{pictures}{_render_classes(evaluation)}
</section>
<div class="columns">
{facts}</div>
<section><h2>The command</h2><pre><code>{escape(command)}</code></pre></section>
</body>
</html>
"""


def _render_tiles(evaluation: Evaluation) -> str:
    tiles = {
        "accuracy": f"{evaluation.accuracy:.2%}",
        f"wrong of {evaluation.count:,}": f"{evaluation.count - evaluation.correct:,}",
        "loss": f"{evaluation.loss:.4f}",
        "calibration error": f"{evaluation.ece:.2%}",
    }
    body = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in tiles.items())
    return f'<div class="tiles">{body}</div>'


def _render_classes(evaluation: Evaluation) -> str:
    values = evaluation.to_dict()
    rows = "".join(
        f"<tr><td>{row['digit']}</td><td>{row['support']:,}</td>{_ratio_cells(row)}</tr>\n"
        for row in values["per_class"]
    )
    return f"""<section><h2>Per digit</h2><div class="wide"><table class="numbers">
<thead><tr><th>digit</th><th>images</th><th>precision</th><th>recall</th><th>F1</th></tr></thead>
<tbody>
{rows}</tbody>
<tfoot><tr><td>mean</td><td>{evaluation.count:,}</td>{_ratio_cells(values["macro"])}</tr></tfoot>
</table></div></section>"""


def _ratio_cells(ratios: Mapping[str, float]) -> str:
    return "".join(f"<td>{ratios[name]:.2%}</td>" for name in ("precision", "recall", "f1"))


def _render_facts(heading: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(_to_text(value))}</td></tr>\n'
        for name, value in values.items()
    )
    return f'<section><h2>{escape(heading)}</h2><table class="facts">\n{rows}</table></section>\n'


def _to_text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)
