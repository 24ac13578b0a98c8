"""The keys that are fixed in the configuration file, as the keyring takes them."""

import hashlib

from spillway.config.configuration import Configuration
from spillway.core.clock import Seconds
from spillway.core.ids import KeyId
from spillway.store.minting import row_for
from spillway.store.rows import KeyRow


def key_rows(configuration: Configuration, seal: bytes, now_s: Seconds) -> list[KeyRow]:
    """A key keeps its id as long as its secret is the same. `seal`: the home's secret that digests are keyed with."""
    public = configuration.public_names()
    return [
        row_for(
            key.secret,
            seal,
            key=KeyId(f"key_file_{hashlib.blake2b(key.secret.encode(), key=seal, digest_size=8).hexdigest()}"),
            now_s=now_s,
            tenant=key.tenant,
            name=key.name,
            models=None if key.models is None else frozenset(public[model] for model in key.models),
            highest_priority=key.priority,
        )
        for key in configuration.keys
    ]
