"""Several processes that train one run: see docs/howto/several_hosts.md."""
