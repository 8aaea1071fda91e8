"""The family of pipelines: several models trained, joined, evaluated and written as one."""
