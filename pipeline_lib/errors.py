"""Everything that Lode raises on purpose, and the exit code that each ends a command with.

The exit codes are a contract with schedulers (docs/operations.md): 0 done, 1 failed and nothing visible changed, 2 wrong
usage or configuration, 10 done but data is missing, 11 lost to a concurrent run, 12 verification found a difference,
13 the target refuses.
"""


class LodeError(Exception):
    """The work failed; nothing visible has changed."""

    exit_code = 1


class ConfigError(LodeError):
    """A configuration file, a topic file or an argument holds something that cannot be used."""

    exit_code = 2


class ServerUnavailable(LodeError):
    """A server that the work needs did not answer within its time-out."""


class DataMissing(LodeError):
    """The work is done and visible, but records are missing from it: a gap, a skipped segment, too much quarantine."""

    exit_code = 10


class LostRace(LodeError):
    """A concurrent run committed the same step first. Nothing of this run is visible, nothing of the other is touched."""

    exit_code = 11


class VerificationFailed(LodeError):
    """What is stored differs from what was recorded about it."""

    exit_code = 12


class TargetRefuses(LodeError):
    """The target of a replay would lose or change records; nothing was written."""

    exit_code = 13


class CorruptBatch(LodeError):
    """A Kafka record batch is damaged or malformed; no record of it was used."""
