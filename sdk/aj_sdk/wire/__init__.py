"""The wire: what is stored in JetStream and what crosses NATS, as values and bytes.

Pure: no I/O, no clock, no randomness of its own.
"""
