"""HTTP/1.1 as bytes, headers and framing: server and client protocols, connection pool, TLS, proxies. Floor 1.

Knows no tenants and no models. `ports.py` is what its users implement.
"""
