"""The command line. A file a resource; commands speak gRPC, data goes to stdout, messages to stderr."""
