"""Which verbs there are. A verb's module is imported only when the verb is used, so that `--help` stays quick."""

VERBS: dict[str, tuple[str, str]] = {
    "up": ("spillway.cli.up", "two local clusters with the bundled model behind the gateway"),
    "serve": ("spillway.cli.serve", "a gateway from a configuration file"),
    "engine": ("spillway.cli.engine", "one model from a folder, with continuous batching"),
    "config": ("spillway.cli.config", "check a configuration file, or print its JSON schema"),
    "key": ("spillway.cli.key", "create, list and revoke the keys of callers"),
    "admin": (
        "spillway.cli.admin",
        "one operation of the admin API: organizations, tenants, keys, tokens, audit, usage, pools",
    ),
    "batch": (
        "spillway.cli.batch",
        "offline jobs: submit, wait for, list, show, cancel and fetch them; or work on them",
    ),
    "usage": ("spillway.cli.usage", "what tenants and organizations used; single records as Parquet"),
    "bench": ("spillway.cli.bench", "load on a URL: profiles, traces, objectives, goodput"),
    "calibrate": ("spillway.cli.calibrate", "measure the capacity record of a live pool"),
    "drill": ("spillway.cli.drill", "a fault on a running system under load, and what users felt of it"),
    "simulate": ("spillway.cli.simulate", "a trace through the brain in virtual time, or a journal told again"),
    "upstream": ("spillway.cli.upstream", "a scriptable fake engine, for tests and drills"),
}
"""verb → (module, one line of help)"""
