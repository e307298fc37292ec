"""Counts visits in redis and writes them down in postgres; each answer says who gave it."""

import http.server
import os
import socket

import psycopg2
import redis

cache = redis.Redis(host="cache")
PASSWORD = open("/run/secrets/password").read()


class Visit(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            hits = cache.incr("hits")
            with psycopg2.connect(host="database", user="postgres", password=PASSWORD, dbname="postgres") as database:
                with database.cursor() as cursor:
                    cursor.execute("CREATE TABLE IF NOT EXISTS visits (number bigint)")
                    cursor.execute("INSERT INTO visits VALUES (%s)", (hits,))
                    cursor.execute("SELECT count(*) FROM visits")
                    rows = cursor.fetchone()[0]
            status, text = 200, f"{os.environ['GREETING']}: hits={hits} rows={rows} from={socket.gethostname()}\n"
        except Exception as error:
            status, text = 503, f"not yet: {error}\n"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


print("the shop is open", flush=True)
http.server.ThreadingHTTPServer(("", 8000), Visit).serve_forever()
