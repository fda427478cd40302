"""The report: one HTML page that needs no other file and no network, with tables, charts and pictures of all results.

A section of the page is a function of a module here; `benchmarks.report.page` lists them in their order.
"""
