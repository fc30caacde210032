"""The pure bodies of the stages: rows in, rows out. They never import Prefect."""
