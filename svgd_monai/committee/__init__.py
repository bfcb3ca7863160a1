"""The committee: particles, SVGD, the Dice log-likelihood, and the engines that train and evaluate it."""

from svgd_monai.committee.checkpoint import convert_committee, load_committee, save_committee
from svgd_monai.committee.evaluator import CommitteeEvaluator, CommitteeStatistics
from svgd_monai.committee.guard import ParticleGuard, finite_particles
from svgd_monai.committee.handlers import CommitteeLoader, CommitteeTracker
from svgd_monai.committee.keeper import CommitteeKeeper
from svgd_monai.committee.loss import LogDiceLoss
from svgd_monai.committee.mean import CommitteeMean, committee_mean
from svgd_monai.committee.optimizer import check_optimizer
from svgd_monai.committee.particles import Particles
from svgd_monai.committee.posterior import Balance, PosteriorStep
from svgd_monai.committee.schedule import LearningRateSchedule
from svgd_monai.committee.svgd import SteinKernel, median_bandwidth, stein_kernel, svgd_direction
from svgd_monai.committee.trainer import CommitteeTrainer

__all__ = [
    "Balance",
    "CommitteeEvaluator",
    "CommitteeKeeper",
    "CommitteeLoader",
    "CommitteeMean",
    "CommitteeStatistics",
    "CommitteeTracker",
    "CommitteeTrainer",
    "LearningRateSchedule",
    "LogDiceLoss",
    "ParticleGuard",
    "Particles",
    "PosteriorStep",
    "SteinKernel",
    "check_optimizer",
    "committee_mean",
    "convert_committee",
    "finite_particles",
    "load_committee",
    "median_bandwidth",
    "save_committee",
    "stein_kernel",
    "svgd_direction",
]
