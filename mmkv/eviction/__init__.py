"""Which visual tokens of the past are kept."""
