"""What `bench.lanes` compares with: one file per peer, each run as a process of its own: ``python -m ... JOB``.

The job: for each tick of each symbol, keep all 80 features up to date. Peers that compute in plain Python do the
whole job (`features.py`), and ten indicators of it (`indicators.py`) for comparison; packages of indicators do what
they have indicators for. Those that read Kafka also send a row for each tick, as a worker sends a prediction.
"""
