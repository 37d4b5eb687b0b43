"""One page, one table and one data file of all that a work dir of reproductions holds."""

from mmdysample.reproduce.report.write import write_report

__all__ = ['write_report']
