"""``python -m tests.serve.impatient serve ...``: the server, which waits a second for a client.

Its limits are the same code with smaller numbers: what they do is tested without waiting half a
minute. Nothing else may be tested on such a server, since a busy machine is slow too.
"""

from __future__ import annotations

from scanner.cli import main
from scanner.serve import protocol, web

if __name__ == "__main__":
    web.BODY_SECONDS = 1.0
    protocol.REQUEST_SECONDS = 3.0
    main()
