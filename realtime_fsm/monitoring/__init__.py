"""What an operator reads: metrics and health, derived from what the engine counts."""
