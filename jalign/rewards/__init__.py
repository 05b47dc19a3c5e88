"""What scores a finished response."""
