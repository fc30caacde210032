"""The pure bodies of the stages: warehouse rows in, warehouse rows out. They never import Prefect."""
