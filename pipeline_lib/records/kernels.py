"""Compiled loops over the bytes of Kafka records (message format v2), called by record_batch.

`measure` checks every length against the end of the batch before anything is used, so that `fill` and `gather` need no
checks of their own: a damaged or hostile batch ends in a negative code, never in a read past the buffer.
Format: https://kafka.apache.org/documentation/#record
"""

import numba as nb
import numpy as np

OK = 0
BAD_VARINT = -1
BAD_LENGTH = -2
BAD_OFFSET = -3
TRAILING_BYTES = -4

REASONS = {
    BAD_VARINT: "a number runs past the end of the batch or is longer than 10 bytes",
    BAD_LENGTH: "a length points outside its record",
    BAD_OFFSET: "record offsets do not increase or leave the batch's range",
    TRAILING_BYTES: "bytes are left over after the last record",
}


@nb.njit(cache=True, inline="always")
def _varint(data, pos, end):
    """The zigzag varint at pos as (value, next position); next position is -1 where it does not end before `end`."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while pos < end and shift < np.uint64(70):
        byte = np.uint64(data[pos])
        pos += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(128):
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), pos
        shift += np.uint64(7)
    return np.int64(0), np.int64(-1)


@nb.njit(cache=True, inline="always")
def _skip(data, pos, end, nullable):
    """The position behind a length-prefixed field; -1 for a bad number, -2 for a bad length."""
    length, pos = _varint(data, pos, end)
    if pos < 0:
        return np.int64(-1)
    if length < 0:
        return pos if nullable and length == -1 else np.int64(-2)
    if length > end - pos:
        return np.int64(-2)
    return pos + length


@nb.njit(cache=True)
def measure(data, pos, end, count, last_delta):
    """The number of headers in the `count` records of data[pos:end], or a negative code where a record is malformed."""
    headers = np.int64(0)
    previous = np.int64(-1)
    for _ in range(count):
        length, pos = _varint(data, pos, end)
        if pos < 0:
            return BAD_VARINT
        if length < 1 or length > end - pos:
            return BAD_LENGTH
        stop = pos + length
        _, pos = _varint(data, pos + 1, stop)
        if pos < 0:
            return BAD_VARINT
        delta, pos = _varint(data, pos, stop)
        if pos < 0:
            return BAD_VARINT
        if delta <= previous or delta > last_delta:
            return BAD_OFFSET
        previous = delta
        for _field in range(2):
            pos = _skip(data, pos, stop, True)
            if pos < 0:
                return pos
        n, pos = _varint(data, pos, stop)
        if pos < 0:
            return BAD_VARINT
        if n < 0 or n > stop - pos:
            return BAD_LENGTH
        for _header in range(n):
            pos = _skip(data, pos, stop, False)
            if pos < 0:
                return pos
            pos = _skip(data, pos, stop, True)
            if pos < 0:
                return pos
        headers += n
        if pos != stop:
            return BAD_LENGTH
    return headers if pos == end else TRAILING_BYTES


@nb.njit(cache=True)
def fill(data, pos, end, count, base, first_timestamp, offsets, timestamps, fields, header_counts, headers, i, j):
    """Write the records of one measured batch into the columns from row i and header j on; return the next i and j.

    `fields` and `headers` are int64 arrays of shape (4, n): start and length of the key, start and length of the value.
    """
    for _ in range(count):
        _, pos = _varint(data, pos, end)
        delta, pos = _varint(data, pos + 1, end)
        timestamps[i] = first_timestamp + delta
        delta, pos = _varint(data, pos, end)
        offsets[i] = base + delta
        for field in range(2):
            length, pos = _varint(data, pos, end)
            fields[2 * field, i] = pos
            fields[2 * field + 1, i] = length
            pos += max(length, 0)
        n, pos = _varint(data, pos, end)
        header_counts[i] = n
        for _header in range(n):
            for field in range(2):
                length, pos = _varint(data, pos, end)
                headers[2 * field, j] = pos
                headers[2 * field + 1, j] = length
                pos += max(length, 0)
            j += 1
        i += 1
    return i, j


@nb.njit(cache=True)
def gather(data, starts, lengths, out, ends):
    """Copy the pieces data[start:start+length] one behind the other into `out`; `ends` gets the n+1 piece borders."""
    at = 0
    for i in range(len(starts)):
        ends[i] = at
        length = lengths[i]
        if length > 0:
            out[at : at + length] = data[starts[i] : starts[i] + length]
            at += length
    ends[len(starts)] = at
