"""What a user works with: streams, new or opened again, and all that belongs to them."""
