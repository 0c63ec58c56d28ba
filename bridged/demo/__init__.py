"""The demo upstream: an LLM provider made of nothing, so that the first `curl` streams an answer without any key.

It speaks three dialects, blocking and streaming, counts tokens, and calls a tool when it is asked to. The same
question always gets the same answer. One module a dialect turns a Reply into that API's JSON and events.
"""
