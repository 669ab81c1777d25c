"""The main job, end to end: a real vLLM serves a real workload without FlexKV and with it; see `demo/run.py`."""
