"""REST: `app.py` is the application, `connection.py` speaks HTTP, `door.py` lets in, `server.py` runs it."""
