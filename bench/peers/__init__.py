"""What `bench.lanes` compares with: one file per peer, each run as a process of its own: ``python -m ... JOB``.

All do one job: for each tick of each symbol, keep the indicators of `indicators.INDICATORS` up to date, with what
the peer offers for that. Those that read Kafka also send a row of values for each tick, as a worker sends a
prediction.
"""
