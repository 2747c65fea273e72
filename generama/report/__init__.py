"""Run folders in, one offline HTML file out."""

from generama.report.page import write_report

__all__ = ["write_report"]
