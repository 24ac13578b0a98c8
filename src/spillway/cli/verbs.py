"""Which verbs there are. A verb's module is imported only when the verb is used, so that `--help` stays quick."""

VERBS: dict[str, tuple[str, str]] = {}
"""verb → (module, one line of help)"""
