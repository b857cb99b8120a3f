"""What happened to one turn, and how to show it."""
