"""Settings of pipelines: models that name candidates, and what makes one list of them."""
