"""
Pre-authentication encoding: pieces joined so that none can slide into its neighbour.

The count and then every piece's length are 64-bit little-endian, as in PASETO (section 2.2 of its specification).
"""


def pae(*pieces: bytes | str) -> bytes:
    """Encode the pieces; text counts as its UTF-8 bytes."""
    encoded = len(pieces).to_bytes(8, "little")
    for piece in pieces:
        raw = piece.encode() if isinstance(piece, str) else piece
        encoded += len(raw).to_bytes(8, "little") + raw
    return encoded


def unpae(encoded: bytes) -> list[bytes]:
    """Decode what :func:`pae` made. Raises ValueError for anything else."""
    count, offset = int.from_bytes(encoded[:8], "little"), 8
    pieces = []
    for _ in range(count):
        length = int.from_bytes(encoded[offset : offset + 8], "little")
        pieces.append(encoded[offset + 8 : offset + 8 + length])
        offset += 8 + length
        if offset > len(encoded):
            raise ValueError("truncated")
    if offset != len(encoded):
        raise ValueError("not canonical")
    return pieces
