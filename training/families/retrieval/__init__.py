"""What two-towers and session models share."""
