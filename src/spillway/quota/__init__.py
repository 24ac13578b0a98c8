"""What a caller may use: quotas of organizations, tenants and end users, and the leases in which gateways share them. Pure."""
