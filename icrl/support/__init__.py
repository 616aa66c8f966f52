"""General support: readable errors, atomic files, devices, memory, the terminal, and the hub."""
