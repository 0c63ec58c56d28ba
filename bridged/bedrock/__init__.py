"""Anthropic Messages to and from Bedrock: what a request becomes, and what becomes of an answer. No I/O, no clock."""
