"""The HTTP faces: the public data plane, the public and admin ASGI apps, and the one table from Outcome to status. Floor 6."""
