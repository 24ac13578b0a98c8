"""How a request ended. One enum is the metric label, the log field, the ledger column and the key of the error table.

Every request ends in exactly one of these. `api/errors.py` alone knows which HTTP status belongs to which.
"""

import enum


class Outcome(enum.StrEnum):
    OK = "ok"

    # The client's side
    CLIENT_LEFT = "client_left"  # closed its connection before the answer was complete
    CLIENT_TIMEOUT = "client_timeout"  # sent its request, or took its answer, too slowly
    INVALID_REQUEST = "invalid_request"  # cannot be understood
    TOO_LARGE = "too_large"  # head or body over the limit
    UNSUPPORTED_ENCODING = "unsupported_encoding"  # a compressed request body
    UNAUTHENTICATED = "unauthenticated"  # no key, or an unknown, expired or revoked one
    FORBIDDEN = "forbidden"  # the key may not use this model
    MODEL_NOT_FOUND = "model_not_found"
    NO_POOL_ALLOWED = "no_pool_allowed"  # the spill policy, or its price ceiling, leaves no pool of the model
    UNSUPPORTED_ENDPOINT = "unsupported_endpoint"  # no such path here
    METHOD_NOT_ALLOWED = "method_not_allowed"

    # Load
    RATE_LIMITED = "rate_limited"  # the tenant's own limit
    REFUSED = "refused"  # every tier is full and so is the waiting room
    EVICTED = "evicted"  # waited as long as its priority may
    UNAVAILABLE = "unavailable"  # no endpoint may be used, or this gateway cannot account for the request

    # The upstream's side
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    CONTENT_FILTERED = "content_filtered"
    UPSTREAM_REJECTED = "upstream_rejected"  # another 4xx that says the request is at fault
    UPSTREAM_ERROR = "upstream_error"  # faults on every attempt, before the answer began
    UPSTREAM_TIMEOUT = "upstream_timeout"  # no answer in time, before the answer began
    CUT = "cut"  # the stream broke or stalled after the answer began

    INTERNAL = "internal"  # a mistake of ours
