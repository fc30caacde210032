"""The completion engine and the simulated language model. It never imports Prefect."""
