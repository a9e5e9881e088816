"""What machines are told: instruments, their values, and the two forms in which they leave the process.

`instruments` is the table of all of them, `metrics` holds their values, `observe` turns events into values, `text` and
`otlp` write them down, `pulse` says how the node is. `dewy.admin` serves the first and the last over HTTP.
"""
