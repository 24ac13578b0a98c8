"""What some tests need of the machine. `./dev test` installs it on Debian; elsewhere they are left out, and say so."""

import pytest

from spillway.testing.network import can_make_networks
from spillway.testing.postgres import postgres_folder
from spillway.testing.redis import redis_binary

needs_redis = pytest.mark.skipif(redis_binary() is None, reason="needs valkey-server or redis-server")
needs_postgres = pytest.mark.skipif(postgres_folder() is None, reason="needs PostgreSQL, and a user to run it as")
needs_networks = pytest.mark.skipif(not can_make_networks(), reason="needs root, ip and nft")
