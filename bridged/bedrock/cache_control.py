"""`cache_control` of single blocks: what Bedrock does not know in it is taken out, the rest of the body is not touched.

Bedrock answers "cache_control.ephemeral.scope: Extra inputs are not permitted", and the same for `ttl` with older
models. Only where the API has cache_control is it looked for: what a tool was called with may have one of its own.
"""

from bridged.json_edit import JsonArray, JsonObject, is_array, is_object

# Where blocks, or messages with blocks as their content, stand at the top of a body.
_FIELDS = ("system", "tools", "messages")
_MARK = b'"cache_control"'
# A message, a tool's result in it, a search's result in that, its text. What is deeper is none of the API's, and each
# level is read once more than the one around it.
_MOST_LEVELS = 4


def strip_cache_control(body: JsonObject, *, keep_ttl: bool) -> None:
    """Take `scope`, and `ttl` unless it is kept, out of every block's `cache_control`."""
    dropped = ("scope",) if keep_ttl else ("scope", "ttl")
    for field in _FIELDS:
        value = body.get(field)
        if value is None or not _may_have(value, dropped) or not is_array(value):
            continue
        edited = _blocks(value, dropped, _MOST_LEVELS)
        # The words may have stood in a text.
        if edited != value:
            body.put(field, edited)


def _may_have(text: bytes, dropped: tuple[str, ...]) -> bool:
    return _MARK in text and any(name.encode() in text for name in dropped)


def _blocks(text: bytes, dropped: tuple[str, ...], levels: int) -> bytes:
    array = JsonArray(text)
    for place, piece in array:
        if _may_have(piece, dropped) and is_object(piece):
            array.put(place, _block(piece, dropped, levels))
    return array.encode()


def _block(text: bytes, dropped: tuple[str, ...], levels: int) -> bytes:
    """A block, or a message, with the blocks in its content: a tool's result has some of its own."""
    block = JsonObject(text)
    control = block.get("cache_control")
    if control is not None and is_object(control):
        edited = JsonObject(control)
        for name in dropped:
            edited.remove(name)
        block.put("cache_control", edited.encode())
    content = block.get("content")
    if levels > 1 and content is not None and is_array(content) and _may_have(content, dropped):
        block.put("content", _blocks(content, dropped, levels - 1))
    return block.encode()
