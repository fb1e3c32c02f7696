"""Request traces: arrival times and lengths of requests, read from the formats in use."""

from melange.traces.layout import FORMATS, ROLES, TIME_UNITS
from melange.traces.read import iter_trace, read_trace
from melange.traces.report import TraceReport
from melange.traces.trace import Trace

__all__ = ["FORMATS", "ROLES", "TIME_UNITS", "Trace", "TraceReport", "iter_trace", "read_trace"]
