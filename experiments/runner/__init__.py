"""From plans to finished folders: build, train, resume, record provenance."""
