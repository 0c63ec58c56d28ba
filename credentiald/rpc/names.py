"""Names in gRPC metadata that server and commands share. Imports nothing, for the sake of the commands."""

# Trailing metadata of a rpc that took something away: how many bridges had not confirmed it in time, or `unknown`.
UNACKNOWLEDGED = "drawbridge-unacknowledged"
# Of one whose entry of the audit waits to be written.
AUDIT_WAITING = "drawbridge-audit-waiting"
# Its value where nothing should be done that is not written down, and a token was made all the same.
STRICT = "strict"
