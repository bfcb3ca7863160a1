"""The loop: rounds, their ledger, resume."""

from svgd_monai.rounds.entry import active_learning
from svgd_monai.rounds.hooks import AfterRound, AfterRun, BeforeRound
from svgd_monai.rounds.ledger import Ledger
from svgd_monai.rounds.lock import run_lock
from svgd_monai.rounds.loop import ActiveLearning
from svgd_monai.rounds.people.agreement import PoolAgreement
from svgd_monai.rounds.people.loop import PeopleLearning
from svgd_monai.rounds.run_folder import RunFolder

__all__ = [
    "ActiveLearning",
    "AfterRound",
    "AfterRun",
    "BeforeRound",
    "Ledger",
    "PeopleLearning",
    "PoolAgreement",
    "RunFolder",
    "active_learning",
    "run_lock",
]
