"""The QC page: what a person looks at before trusting a result."""

from hftn_sr.report.case import QcCase, cases_of_run
from hftn_sr.report.page import EntryReporter, write_report

__all__ = ["EntryReporter", "QcCase", "cases_of_run", "write_report"]
