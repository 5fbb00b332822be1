"""HTML of what a session holds. Functions of their arguments alone; all text is escaped."""
