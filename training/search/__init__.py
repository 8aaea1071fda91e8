"""The search for settings: `recsys tune`."""
