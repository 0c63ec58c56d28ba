"""What is kept: plain functions of a connection, a file a resource, behind one seam to the event loop.

The functions take a `Connection`, return model values and never rows, and record each change in the change log in
the transaction of the change. `Database` runs them. Statements keep to what SQLite and PostgreSQL share.
"""
