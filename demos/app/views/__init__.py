"""HTML of what a session holds, by functions of their arguments alone; all text is escaped."""
