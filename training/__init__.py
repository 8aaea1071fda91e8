"""Jobs that train, evaluate and report."""

if __name__ != "recsys.training":
    raise ImportError("import recsys.training: by another name its modules would exist twice")
