"""How a sweep runs: one trial (trial.py), where (executors.py), and which next (engine.py)."""
