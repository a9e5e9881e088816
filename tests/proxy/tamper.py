"""What a fault does to the bytes of a body as they pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tests.proxy.faults import Action, Corrupt, CutBody, ResetBody, SlowBody, Where
from tests.proxy.streams import Severed
from tests.proxy.wire import Body


def tamper(body: Body | None, action: Action | None, where: Where) -> Body | None:
    """`body` as it is after `action`, if that is about bodies, and on this side; else as it was."""
    if body is None or not isinstance(action, SlowBody | CutBody | ResetBody | Corrupt) or action.where != where:
        return body
    blocks, length = body.blocks, body.length
    match action:
        case SlowBody(pause, block):
            blocks = _slow(blocks, block, pause)
        case CutBody(after, _, seamless):
            blocks = _cut(blocks, after, None if seamless else Severed(reset=False))
            length = min(length, after) if seamless and length is not None else length
        case ResetBody(after):
            blocks = _cut(blocks, after, Severed(reset=True))
        case Corrupt(at):
            blocks = _corrupt(blocks, at)
    return Body(blocks, length, body.trailers)


def end_of(action: Action | None, where: Where) -> Severed | None:
    """How the connection ends, by `action`, after a message that has no body."""
    match action:
        case CutBody(_, at, False) if at == where:
            return Severed(reset=False)
        case ResetBody(_, at) if at == where:
            return Severed(reset=True)
    return None


async def _slow(blocks: AsyncIterator[bytes], size: int, pause: float) -> AsyncIterator[bytes]:
    async for block in blocks:
        for start in range(0, len(block), size):
            yield block[start : start + size]
            await asyncio.sleep(pause)


async def _cut(blocks: AsyncIterator[bytes], after: int, end: Severed | None) -> AsyncIterator[bytes]:
    left = after
    async for block in blocks:
        if len(block) > left:
            # What was to follow is read all the same: closing a socket with unread bytes would reset it.
            yield block[:left]
            left = 0
            if end is not None and end.reset:
                raise end
        else:
            left -= len(block)
            yield block
    if end is not None:
        raise end


async def _corrupt(blocks: AsyncIterator[bytes], at: int) -> AsyncIterator[bytes]:
    position = 0
    async for block in blocks:
        if position <= at < position + len(block):
            index = at - position
            block = block[:index] + bytes([block[index] ^ 0xFF]) + block[index + 1 :]
        position += len(block)
        yield block
