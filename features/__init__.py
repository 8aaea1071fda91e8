"""Raw tables in, typed batches out."""

if __name__ != "recsys.features":
    raise ImportError("import recsys.features: by another name its modules would exist twice")
