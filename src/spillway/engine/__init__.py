"""The embedded engine: a process of its own that serves one model from a folder, with continuous batching. Floor 6.

`process` composes it: a thread owns the pipeline (`stepper`), the event loop answers HTTP (`front`). Only `pipeline` knows OpenVINO.
"""
