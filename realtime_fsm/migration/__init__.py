"""From an old client to this one: side by side, step by step, and back."""
