"""The keys that are fixed in the configuration file, as the keyring takes them."""

import hashlib

from spillway.config.configuration import Configuration
from spillway.config.settings import Key
from spillway.core.ids import KeyId
from spillway.gateway.ports import Principal
from spillway.store.rows import KeyRow


def fixed_keys(configuration: Configuration, seal: bytes) -> dict[bytes, Principal]:
    """By their secrets. Of their tenants is known what the file says: they work without a store.

    A key keeps its id as long as its secret is the same. `seal`: what the id is keyed with, for it is no secret.
    """
    terms, public = configuration.terms(), configuration.public_names()

    def row(key: Key) -> KeyRow:
        return KeyRow(
            id=KeyId(f"key_file_{hashlib.blake2b(key.secret.encode(), key=seal, digest_size=8).hexdigest()}"),
            digest=b"",
            tenant=key.tenant,
            name=key.name,
            models=None if key.models is None else frozenset(public[model] for model in key.models),
            highest_priority=key.priority,
            created_at_s=0.0,
            expires_at_s=None,
            revoked_at_s=None,
            last4=key.secret[-4:],
            policy=key.policy,
            networks=key.networks,
        )

    return {key.secret.encode(): terms.principal(row(key), None, None) for key in configuration.keys}
