"""The credential plane: owns providers, keys, users and policy, and answers ResolveProvider."""
