"""After the runs: results become curves, a front with intervals, paired tests, tables, figures and a page.

This package leans on `palp_lab.types` alone; W&B is reached through `sinks`, its only door.
"""
