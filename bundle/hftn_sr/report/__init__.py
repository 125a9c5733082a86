"""The QC page: what a person looks at before trusting a result."""

from hftn_sr.report.case import QcCase, cases_of_run
from hftn_sr.report.page import draw_case, write_report

__all__ = ["QcCase", "cases_of_run", "draw_case", "write_report"]
