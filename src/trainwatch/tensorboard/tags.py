"""Names that the writer of events and the tab that reads them share. It imports nothing: the tab must start fast."""

PLUGIN_NAME = "trainwatch"
FINDINGS = "trainwatch/findings"  # what the tab says in words
FIGURES = "trainwatch/figures"  # what it draws
