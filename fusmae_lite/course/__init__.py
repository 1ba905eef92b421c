"""The course: what notebooks begin with, the runner, the exercises, and the command line."""
