"""Examiners of edits and of generated pictures: sets, cells, tables, calibration of the panel."""
