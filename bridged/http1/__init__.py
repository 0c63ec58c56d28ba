"""HTTP/1.1 on both sides of the bridge: clients in front (downstream.py), upstreams behind (upstream.py).

The rules of this room:

- It knows HTTP and nothing of what is carried: no provider, no token, no dialect. Who answers is a Service, who is
  answered is a receiver; both are Protocols.
- What a message is, is decided by modules without I/O (framing, chunked, body, head_reader, answer_framing in front;
  response_framing, request_head behind), which are tested without a socket. What touches a socket decides nothing.
- Whatever two readers could take for two different messages is refused, in both directions, by a grammar that is
  narrower than RFC 9112 and by llhttp in its strict mode: both must accept. Each refusal has its row in
  tests/data/http1/smuggling.
- Nothing that was sent is quoted: not in an answer, not in a log, not in the text of an error.
- After the first byte of an answer, nothing else can be said on its connection but the rest of that answer.
- Memory is bounded whatever a peer does or leaves undone: each buffer has a limit, each wait a time, and a side that
  is slow holds up the other.
- Callbacks, no task and no future for a request, no timer for a connection: one sweep a second looks after all of them.
- Headers, targets and bodies go on byte for byte as they came or were decided.
"""
