"""The model, and what every pass through it shares."""
