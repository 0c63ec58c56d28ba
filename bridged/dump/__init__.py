"""The API dump: what goes to upstreams and comes back, in files, for finding out what went wrong (docs/dump.md).

Off unless a folder is set. Prompts and answers are in those files, because that is what they are for; credentials are
not: what is shown of a head is a list, and what a request came and goes with is masked wherever it stands.

Pure: `needles.py` (secrets in every form, masked in pieces), `shown.py` (heads), `body.py` (bodies), `names.py` (of
folders and files). On the loop: `dumper.py`, which copies nothing and waits for nothing. On a thread: `writer.py`,
`attempt_files.py`, `folder.py`, `room.py` (the oldest files go).
"""
