"""What models with vectors are exported to: one file a target, `registry.py` lists them."""
