"""Object storage: artifacts, parts, leases, run records and the file formats that stages share."""
