"""Plan a run for hardware that is not available, by ahead-of-time compilation."""
