"""The REST service: `app.py` answers, `server.py` runs it on uvicorn."""
