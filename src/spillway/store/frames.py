"""Spool segments: frames of length, crc32, and a msgpack list of usage records. Pure.

A process that dies leaves at most one torn frame, at the end; `read_segment` gives the good records before it. A bad
frame elsewhere is damage: what can be read around it is given all the same.
"""

import struct
import zlib
from collections.abc import Sequence

import msgspec

from spillway.core.usage import UsageRecord

_HEAD = struct.Struct("<II")
MAX_FRAME_BYTES = 16 << 20


class Segment(msgspec.Struct, frozen=True):
    """`torn`: it ends in an incomplete frame. `damaged`: bytes inside it are not what was written."""

    records: list[UsageRecord]
    torn: bool
    damaged: bool


def write_frame(records: Sequence[UsageRecord]) -> bytes:
    """OverflowError or ValueError for what cannot be read again: a number or a text that msgpack cannot carry, a payload
    above MAX_FRAME_BYTES."""
    payload = msgspec.msgpack.encode(records)
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(payload)} bytes")
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def read_segment(content: bytes) -> Segment:
    records: list[UsageRecord] = []
    decoder = msgspec.msgpack.Decoder(list[UsageRecord])
    position, damaged = 0, False
    while position + _HEAD.size <= len(content):
        length, checksum = _HEAD.unpack_from(content, position)
        begin = position + _HEAD.size
        if length > MAX_FRAME_BYTES:
            return Segment(records, torn=False, damaged=True)  # not a length: nothing after it can be found
        if begin + length > len(content):
            return Segment(records, torn=True, damaged=damaged)
        payload = content[begin : begin + length]
        position = begin + length
        try:
            if zlib.crc32(payload) != checksum:
                damaged = True
            else:
                records.extend(decoder.decode(payload))
        except msgspec.DecodeError:  # also ValidationError: a record of another version
            damaged = True
    return Segment(records, torn=position < len(content), damaged=damaged)
