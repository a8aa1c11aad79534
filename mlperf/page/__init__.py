"""The HTML page of one or several runs: curves, comparison, time, settings, system."""
