"""What a served model is asked, as tables."""
