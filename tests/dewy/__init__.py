"""The tests, and what they share: real servers (`tests.servers`) and a proxy that makes faults (`tests.proxy`)."""
