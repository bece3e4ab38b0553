"""What the app does, as one would write it in Flask: /health touches nothing, /ready asks the primary over a pool."""

import os

from flask import Flask, jsonify
from psycopg_pool import ConnectionPool

app = Flask(__name__)
pool = None


def connections():
    """Opened by each worker, after gunicorn's fork."""
    global pool
    if pool is None:
        pool = ConnectionPool(os.environ["BENCH_DATABASE"], min_size=1, max_size=4, timeout=1, open=True)
    return pool


@app.get("/health")
def health():
    return jsonify(status="alive")


@app.get("/ready")
def ready():
    try:
        with connections().connection() as connection:
            in_recovery, read_only = connection.execute("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')").fetchone()
    except Exception:
        return jsonify(status="not_ready"), 503
    writable = not in_recovery and read_only == "off"
    return jsonify(status="ready" if writable else "not_ready", in_recovery=in_recovery, read_only=read_only), 200 if writable else 503
