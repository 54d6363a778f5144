"""One module a system; each is the only importer of that system's client library."""
