"""What Prometheus is told: what is counted, what each number means, and how they are put together.

Nothing here is global: several servers may run in one process, as they do in tests.
"""
