"""What is fuzzed: a module a target, with

SEEDS       inputs to begin with
WORDS       what a change may put anywhere
one_input   tries an input; whatever it raises is a finding
"""

NAMES = (
    "requests",
    "responses",
    "sse",
    "taps",
    "event_stream",
    "sigv4",
    "headers",
    "json_edit",
    "environment",
    "settings",
    "urls",
    "egress",
    "answers_of_credentiald",
    "peers_of_credentiald",
)
