-- The ledger of a hub sweep. user_version is the version of this file.

-- What verdicts rest on, so that a report needs nothing but the ledger.
CREATE TABLE packs (
  id         INTEGER PRIMARY KEY,
  digest     TEXT NOT NULL UNIQUE,      -- over the packs and the options of a verdict
  signatures TEXT NOT NULL,             -- their summaries, as JSON
  alpha      REAL                       -- what was asked for; null for the default
);

-- One listing: where it stands, so that it can go on there.
CREATE TABLE sweep (
  id         INTEGER PRIMARY KEY,
  query      TEXT NOT NULL,             -- what is listed, as JSON
  packs      INTEGER NOT NULL REFERENCES packs,
  cursor     TEXT,                      -- where the listing goes on, as JSON; null at the start
  listed     INTEGER NOT NULL DEFAULT 0,
  finished   INTEGER NOT NULL DEFAULT 0,
  started    TEXT,                      -- UTC; the last time it was started or gone on with
  requests   INTEGER NOT NULL DEFAULT 0,
  received   INTEGER NOT NULL DEFAULT 0, -- bytes
  UNIQUE (query, packs)
);

CREATE TABLE repository (
  id         INTEGER PRIMARY KEY,
  sweep      INTEGER NOT NULL REFERENCES sweep,
  repository TEXT NOT NULL,
  revision   TEXT NOT NULL,             -- commit sha
  packs      INTEGER NOT NULL REFERENCES packs,
  state      TEXT NOT NULL DEFAULT 'waiting'
             CHECK (state IN ('waiting', 'looked-up', 'refused', 'exhausted')),
  attempts   INTEGER NOT NULL DEFAULT 0,
  retry_at   REAL NOT NULL DEFAULT 0,   -- seconds since the epoch
  UNIQUE (repository, revision, packs)
);
CREATE INDEX repository_waiting ON repository (sweep, id) WHERE state = 'waiting';

-- One adapter as one set of packs sees it.
CREATE TABLE adapter (
  id         INTEGER PRIMARY KEY,
  sweep      INTEGER NOT NULL REFERENCES sweep,
  repository TEXT NOT NULL,
  revision   TEXT NOT NULL,
  subfolder  TEXT NOT NULL,             -- '' at the root
  content    TEXT NOT NULL,             -- digest of its files; '' if they could not be looked up
  files      TEXT,                      -- what it is made of, as JSON, while that is needed
  packs      INTEGER NOT NULL REFERENCES packs,
  -- duplicate: the same content waits under another address, whose verdict this one gets
  state      TEXT NOT NULL
             CHECK (state IN ('waiting', 'duplicate', 'judged', 'refused', 'exhausted')),
  attempts   INTEGER NOT NULL DEFAULT 0,
  retry_at   REAL NOT NULL DEFAULT 0,
  copy_of    INTEGER REFERENCES adapter, -- whose verdict this is; null where it was read
  verdict    TEXT,
  base_model TEXT,
  score      REAL,
  dose       REAL,
  cosine     REAL,
  p_value    REAL,
  reason     TEXT,
  version    TEXT,                      -- of the program that reached the verdict
  finished   TEXT,                      -- UTC
  UNIQUE (repository, revision, subfolder, content, packs)
);
CREATE INDEX adapter_waiting ON adapter (sweep, id) WHERE state = 'waiting';
CREATE INDEX adapter_content ON adapter (content, packs, state);
CREATE INDEX adapter_verdict ON adapter (sweep, verdict);

-- The whole ScanResult of an adapter that was read, once for all its copies. It is kept apart so
-- that whatever goes over the adapters does not go over their results.
CREATE TABLE result (
  adapter    INTEGER PRIMARY KEY REFERENCES adapter,
  packed     BLOB NOT NULL              -- as scanner/sweep/compact.py packs it
);
