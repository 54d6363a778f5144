"""Traffic like that of real experiments, with every number that an analysis of it has to find."""

from pipeline_lib.generate.settings import Record, TrafficSettings
from pipeline_lib.generate.traffic import generate
from pipeline_lib.generate.truth import Cell, Truth

__all__ = ["Cell", "Record", "TrafficSettings", "Truth", "generate"]
