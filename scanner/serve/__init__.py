"""`adapter-scanner serve`: webhooks in, verdicts out.

    web -> intake -> jobs (SQLite) -> judging -> worker process -> write-back

A delivery is answered with 2xx only after it is on disk. Everything after that survives a
crash: a job is judged once, and its verdict is written to where the model lives until that
succeeds or is given up with a reason.
"""
