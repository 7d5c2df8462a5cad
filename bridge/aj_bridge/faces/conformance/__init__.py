"""The conformance runner: asks a responder in any language, and says which paragraph of the protocol it breaks."""
