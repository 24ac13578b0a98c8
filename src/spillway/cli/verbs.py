"""Which verbs there are. A verb's module is imported only when the verb is used, so that `--help` stays quick."""

VERBS: dict[str, tuple[str, str]] = {
    "up": ("spillway.cli.up", "two local clusters with the bundled model behind the gateway"),
    "serve": ("spillway.cli.serve", "a gateway from a configuration file"),
}
"""verb → (module, one line of help)"""
