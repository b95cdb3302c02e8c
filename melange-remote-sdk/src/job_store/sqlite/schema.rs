//! The schema of the database, version by version. A version that was released never changes.

/// The versions, oldest first: what each is about, and its statements.
pub(super) const VERSIONS: [(&str, &str); 8] = [
    ("jobs", JOBS),
    ("small rows for what changes often", SMALL_ROWS),
    ("logs in blocks, events", LOGS_AND_EVENTS),
    ("ended jobs by time", ENDED),
    ("the fleet", FLEET),
    ("builds to list, results, durations", BUILDS),
    ("what jobs ask of backends", RESOURCES),
    ("jobs by source files and project", SOURCES),
];

/// Times are microseconds since 1970, ids are 16 bytes, documents are JSON. States are numbered as `JobState::ALL`.
const JOBS: &str = "
CREATE TABLE specs (
    digest BLOB PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE submissions (
    id INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    key TEXT,
    content BLOB NOT NULL,
    build BLOB,
    jobs BLOB NOT NULL
);
CREATE UNIQUE INDEX submissions_key ON submissions (project, key) WHERE key IS NOT NULL;

CREATE TABLE builds (
    id BLOB PRIMARY KEY,
    doc TEXT NOT NULL
) WITHOUT ROWID;

-- What waits for the same thing, while something does.
CREATE TABLE groups (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    reason TEXT
);

CREATE TABLE jobs (
    id BLOB PRIMARY KEY,
    submission INTEGER NOT NULL,
    build BLOB,
    spec BLOB NOT NULL,
    state INTEGER NOT NULL,
    -- The group of a pending job.
    queue INTEGER,
    priority INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    ready_at INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    token BLOB,
    place INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    lost_needs INTEGER NOT NULL,
    server TEXT,
    backend TEXT,
    cancel_requested INTEGER NOT NULL,
    released TEXT,
    progress INTEGER NOT NULL,
    log_bytes INTEGER NOT NULL,
    log_cut INTEGER NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX jobs_state ON jobs (state, id);
CREATE INDEX jobs_build ON jobs (build, id) WHERE build IS NOT NULL;
CREATE INDEX jobs_submission ON jobs (submission);
CREATE INDEX jobs_spec ON jobs (spec);
CREATE INDEX jobs_queue ON jobs (queue, priority DESC, rank DESC, id, not_before) WHERE queue IS NOT NULL;
CREATE INDEX jobs_lease ON jobs (lease_until) WHERE state = 2;
CREATE INDEX jobs_token ON jobs (token) WHERE state = 2;
CREATE INDEX jobs_backend ON jobs (backend) WHERE state = 2;
CREATE INDEX jobs_server ON jobs (server) WHERE state = 2 AND cancel_requested = 1;

CREATE TABLE waits (
    needs BLOB NOT NULL,
    job BLOB NOT NULL,
    PRIMARY KEY (needs, job)
) WITHOUT ROWID;
CREATE INDEX waits_job ON waits (job);

CREATE TABLE attempts (
    job BLOB NOT NULL,
    number INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;

CREATE TABLE progress (
    job BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    number INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (job, attempt, number)
) WITHOUT ROWID;

CREATE TABLE logs (
    job BLOB NOT NULL,
    start INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (job, start)
);

-- Tokens of claims, until the leases end that they asked for.
CREATE TABLE tokens (
    token BLOB PRIMARY KEY,
    until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tokens_until ON tokens (until);

-- How many jobs are blocked or pending.
CREATE TABLE counters (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    waiting INTEGER NOT NULL
);
INSERT INTO counters VALUES (1, 0);
";

/// How many jobs of a project run, and how many others a job waits for, is asked and changed without documents.
const SMALL_ROWS: &str = "
ALTER TABLE jobs ADD COLUMN project TEXT NOT NULL DEFAULT 'default';
UPDATE jobs SET project = json_extract(doc, '$.project');
CREATE INDEX jobs_project ON jobs (project) WHERE state = 2;
DROP INDEX jobs_server;
CREATE INDEX jobs_server ON jobs (server) WHERE state = 2 AND cancel_requested;

-- Blocked jobs, and how many of the jobs that they wait for have not succeeded.
CREATE TABLE blocked (
    job BLOB PRIMARY KEY,
    needs INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO blocked SELECT id, json_extract(doc, '$.blocked_by') FROM jobs WHERE state = 0;

-- Equal submissions may be joined.
CREATE INDEX submissions_content ON submissions (content, id);
";

/// Whoever writes a log is told when there is no room. Events have the numbers in which they were committed.
const LOGS_AND_EVENTS: &str = "
ALTER TABLE jobs DROP COLUMN log_cut;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    job BLOB,
    build BLOB,
    doc TEXT NOT NULL
);
CREATE INDEX events_job ON events (job, seq) WHERE job IS NOT NULL;
CREATE INDEX events_build ON events (build, seq) WHERE build IS NOT NULL;
ALTER TABLE counters ADD COLUMN events INTEGER NOT NULL DEFAULT 0;
";

/// Ended jobs are found by the time of their end, and with what they still have. That time is rounded down to a second for
/// the jobs that are there already.
const ENDED: &str = "
ALTER TABLE jobs ADD COLUMN package TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN arch TEXT NOT NULL DEFAULT '';
-- While the job has come to its end.
ALTER TABLE jobs ADD COLUMN ended_at INTEGER;
-- What its artifacts take, until they are removed.
ALTER TABLE jobs ADD COLUMN artifact_bytes INTEGER NOT NULL DEFAULT 0;
-- What its logs take among the artifacts.
ALTER TABLE jobs ADD COLUMN archived_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET
    package = coalesce(json_extract(doc, '$.facts.package.name'), json_extract(doc, '$.facts.config_name'), ''),
    arch = json_extract(doc, '$.facts.arch'),
    artifact_bytes = coalesce((SELECT sum(json_extract(value, '$.size_bytes')) FROM json_each(jobs.doc, '$.artifacts')), 0),
    archived_bytes = coalesce((SELECT sum(json_extract(a.doc, '$.log.stored_bytes')) FROM attempts a WHERE a.job = jobs.id), 0);
UPDATE jobs SET ended_at = CAST(strftime('%s', json_extract(doc, '$.finished_at')) AS INTEGER) * 1000000
    WHERE state > 2;
CREATE INDEX jobs_ended ON jobs (ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_artifacts ON jobs (ended_at, id, artifact_bytes) WHERE artifact_bytes > 0;
CREATE INDEX jobs_logs ON jobs (ended_at, id, archived_bytes) WHERE archived_bytes > 0;
CREATE INDEX jobs_newest ON jobs (project, package, arch, ended_at, id) WHERE state = 3;
";

/// Backends by their keys, with the order in which they came.
const FLEET: &str = "
CREATE TABLE backends (
    key TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;
";

/// Builds are listed by project and state; jobs are found by their results, and packages by what they took.
const BUILDS: &str = "
-- Where it is, numbered as `BuildState::ALL`; what is known of it from the beginning.
ALTER TABLE builds ADD COLUMN project TEXT NOT NULL DEFAULT 'default';
ALTER TABLE builds ADD COLUMN state INTEGER NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN facts TEXT NOT NULL DEFAULT '{}';
UPDATE builds SET project = json_extract(doc, '$.project');
-- The counts are those of `JobState::ALL`.
UPDATE builds SET state = CASE
    WHEN json_extract(doc, '$.counts[0]') + json_extract(doc, '$.counts[1]') + json_extract(doc, '$.counts[2]') > 0 THEN
        CASE WHEN json_extract(doc, '$.counts[2]') + json_extract(doc, '$.counts[3]') + json_extract(doc, '$.counts[4]')
            + json_extract(doc, '$.counts[5]') + json_extract(doc, '$.counts[6]') = 0 THEN 0 ELSE 1 END
    WHEN json_extract(doc, '$.counts[4]') + json_extract(doc, '$.counts[5]') + json_extract(doc, '$.counts[6]') = 0 THEN 2
    WHEN json_extract(doc, '$.counts[5]') > 0 AND json_extract(doc, '$.counts[4]') = 0 THEN 5
    WHEN json_extract(doc, '$.counts[3]') = 0 THEN 3
    ELSE 4 END;
CREATE INDEX builds_project ON builds (project, id);
CREATE INDEX builds_state ON builds (state, id);

-- Names what the success of a job came from, and how long its attempt took in milliseconds when it made packages: of
-- jobs that were there before, nobody knows.
ALTER TABLE jobs ADD COLUMN result BLOB;
ALTER TABLE jobs ADD COLUMN took INTEGER;
CREATE INDEX jobs_result ON jobs (result, ended_at, id) WHERE state = 3 AND result IS NOT NULL;
CREATE INDEX jobs_took ON jobs (project, arch, package, ended_at, id, took) WHERE state = 3 AND took IS NOT NULL;
CREATE INDEX jobs_package ON jobs (package, id);
";

/// What runs on a backend is counted in cores and bytes too; jobs that were there before asked for nothing.
const RESOURCES: &str = "
ALTER TABLE jobs ADD COLUMN cpu_millis INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN memory_bytes INTEGER NOT NULL DEFAULT 0;
";

/// Jobs are found by the files beside their definitions, and listed by project.
const SOURCES: &str = "
ALTER TABLE jobs ADD COLUMN source TEXT;
UPDATE jobs SET source = json_extract(doc, '$.facts.source');
CREATE INDEX jobs_source ON jobs (source) WHERE source IS NOT NULL;
CREATE INDEX jobs_of_project ON jobs (project, id);
";
