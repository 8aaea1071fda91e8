"""Jobs that score, export and register."""

if __name__ != "recsys.serving":
    raise ImportError("import recsys.serving: by another name its modules would exist twice")
