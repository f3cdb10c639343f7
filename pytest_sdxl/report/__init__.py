"""What the user reads: the header, progress while LoadGen runs, and the summary."""
