"""Pretraining: one loop, on one process or many, that can be stopped anywhere and resumed to the same numbers."""
