"""One decoder with switches, the families it reproduces, and their checkpoints."""
