"""The gRPC edge: one servicer file a service, one guard, one place where a refusal becomes a status."""
