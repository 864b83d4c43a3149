"""The admin API, `/api/v1/`: what operators can do by command line, for programs (docs/api.md).

One file per resource; each route names the permission that it needs, and `door.py` checks it before anything of the
request is read.
"""
