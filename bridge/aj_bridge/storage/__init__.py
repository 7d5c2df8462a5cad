"""Where tasks, items and waiting items are kept: four narrow protocols, carried out in JetStream and in memory."""
