"""What a hostile neighbour costs the agent: a real process on loopback, flooded over its real socket.

usage: bench_local_api.py [SECONDS]     floods it for so long in each way (default 8); prints Markdown

Heartbeats are timed where they arrive: at a server of ours that stands for Cloudly, every half second. A gap is the
time between two of them; what is said is the longest one, beside the longest one of the same agent in peace.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.yard import Row, table, title
from interfaces.desired import DesiredState
from interfaces.enrollment import RegisterAnswer
from interfaces.heartbeat import HeartbeatAnswer

BEAT_S = 0.5
RATE = 1000
"""Requests a second, of all attackers together."""
MOST_EXTRA_S = 0.25
"""By so much a heartbeat may be late under attack: half an interval, of one that is a hundred times too short."""
STRANGER = 1234
TEN_MB = 10 * 1024 * 1024
