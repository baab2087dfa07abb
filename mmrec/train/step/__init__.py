"""One training step: `stepper.py` runs it.

Then `optimizer.py`, `precision.py`, `guard.py` (steps that went wrong), `ema.py`,
`recompute.py`."""
