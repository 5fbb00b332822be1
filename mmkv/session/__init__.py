"""What a user holds: streams, opened or new, and all that hangs on them."""
