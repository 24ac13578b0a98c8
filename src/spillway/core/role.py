"""What a token of the admin API may do."""

import enum


class Role(enum.StrEnum):
    """Each may do what the ones below it may. Of a token that belongs to an organization all of it is about that organization only."""

    ADMIN = "admin"  # organizations, tenants, their limits, and tokens
    OPERATOR = "operator"  # keys; pools, endpoints, the configuration
    READ_ONLY = "read-only"

    def covers(self, least: "Role") -> bool:
        return _ORDER[self] >= _ORDER[least]


_ORDER = {Role.READ_ONLY: 0, Role.OPERATOR: 1, Role.ADMIN: 2}
