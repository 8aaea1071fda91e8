"""The names of the Python API, for type checkers and editors."""

from recsys.app.comparing import compare as compare
from recsys.app.configuration import Config as Config
from recsys.app.demo import demo as demo
from recsys.app.demo import demo_tables as demo_tables
from recsys.app.experiments import check as check
from recsys.app.experiments import init as init
from recsys.app.experiments import sync as sync
from recsys.app.experiments import train as train
from recsys.app.experiments import tune as tune
from recsys.app.experiments import tune_embedding as tune_embedding
from recsys.app.exporting import verify as verify
from recsys.app.model import Model as Model
from recsys.app.models import evaluate as evaluate
from recsys.app.models import explain as explain
from recsys.app.models import export as export
from recsys.app.models import load as load
from recsys.app.models import register as register
from recsys.app.models import score as score
from recsys.app.models import score_new_items as score_new_items
from recsys.app.promoting import Promotion as Promotion
from recsys.app.promoting import promote as promote
from recsys.app.query_exporting import export_query_vectors as export_query_vectors
from recsys.app.recounting import Recounted as Recounted
from recsys.app.recounting import recount as recount
from recsys.app.run import Run as Run
from recsys.app.tuned import Tuned as Tuned
from recsys.core.errors import ArgumentError as ArgumentError
from recsys.core.errors import ConfigError as ConfigError
from recsys.core.errors import DataError as DataError
from recsys.core.errors import IntegrityError as IntegrityError
from recsys.core.errors import NotBetterError as NotBetterError
from recsys.core.errors import NotFoundError as NotFoundError
from recsys.core.errors import NumericalError as NumericalError
from recsys.core.errors import UserError as UserError
from recsys.core.errors import WorkerError as WorkerError
from recsys.core.events import PartDone as PartDone
from recsys.core.events import PointLogged as PointLogged
from recsys.core.events import StepDone as StepDone

__version__: str
