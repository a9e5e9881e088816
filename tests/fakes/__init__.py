"""Stand-ins for services that cannot run here: real servers in real processes, counted, and made to fail on demand."""
