"""report.html: one page about a run that needs nothing but itself (and the video beside it).

Charts are inline SVG (`plot`), coloured by the variables of `style.css`, so that the page follows the reader's light or
dark theme, prints, and has no script. Every text that comes from a file is escaped.
"""

from __future__ import annotations

import pathlib

from understudy.errors import CheckpointError
from understudy.evaluate import curves as curves_module
from understudy.evaluate.plot import escape
from understudy.evaluate.report import details, headline, learning, live, next_steps, training
from understudy.files import whole


def write(run_folder) -> pathlib.Path:
    """Write RUN/report.html from what the run folder holds, complete or not, and return its path.

    Raises:
      CheckpointError: the file could not be written; an earlier report is left as it was."""
    folder = pathlib.Path(run_folder)
    path = folder / "report.html"
    text = page(folder)
    try:
        with whole(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"Could not write {path} ({error.strerror or error}); free space, mend the permissions, or give the folder "
            f"of a run."
        ) from error
    return path


def page(run_folder) -> str:
    """The HTML of a run folder's report."""
    folder = pathlib.Path(run_folder)
    curves = curves_module.read(folder)
    base = live.baseline_of(folder, curves)
    title, lead = headline.title(curves, folder)
    sections = [
        headline.missing(curves),
        headline.section(curves),
        learning.section(curves, base),
        live.section(curves),
        live.beside(curves, base),
        next_steps.section(curves, folder),
        training.section(curves),
        details.section(curves),
    ]
    style = pathlib.Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    body = "\n".join(s for s in sections if s)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · understudy</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">understudy run report <span class="pill">{escape(headline.state(curves))}</span></p>
<h1>{escape(title)}</h1>
<p class="lead">{lead}</p>
</header>
{body}
<footer>Made by understudy {escape(curves.manifest.get("understudy", ""))} from the files in
<code>{escape(folder)}</code>; every number is computed from
<code>episodes.jsonl</code> and <code>metrics.jsonl</code> there.</footer>
</main>
</body>
</html>
"""
