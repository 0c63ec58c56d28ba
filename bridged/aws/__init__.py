"""What AWS puts on the wire: signatures of requests and binary streams of events. No I/O, no clock."""
