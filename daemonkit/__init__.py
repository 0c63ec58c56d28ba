"""What both daemons need and neither owns: settings reader, logs, TLS files, health listener, Secret."""
