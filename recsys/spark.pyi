"""The names of the Spark API, for type checkers and editors."""

from recsys.app.spark.answering import counts as counts
from recsys.app.spark.answering import predict as predict
from recsys.app.spark.answering import recommend as recommend
from recsys.app.spark.requests import requests_from as requests_from
