"""The frame of the report page: its HTML skeleton, style sheet and script. Nothing in it asks the network."""

from __future__ import annotations

from importlib.resources import files
from string import Template

# The policy forbids every request, so that the page stays self-contained whatever a run's texts hold.
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; base-uri 'none'; form-action 'none';
 style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style</style>
$plotly
</head>
<body>
<main>
$body
</main>
<script type="application/json" id="data">$data</script>
<script>
$script</script>
</body>
</html>
""")
STYLE, SCRIPT = (files("thinwire.report").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
