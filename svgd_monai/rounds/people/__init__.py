"""People label: worklists out, labels back."""
