"""The REST service: `app.py` answers, `connection.py` speaks HTTP, `door.py` lets in, `server.py` runs it."""
