"""How much the bridge takes on, and whose: rates of tokens, slots of users, providers and the bridge as a whole.

`entrance.py` is what an interception meets; everything beside it is pure: values and times in, decisions out.
"""
