//! The schema of the database, version by version. A version that was released never changes.

/// The versions, oldest first: what each is about, and its statements.
pub(super) const VERSIONS: [(&str, &str); 7] = [
    ("jobs", JOBS),
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
    digest BYTEA PRIMARY KEY,
    body TEXT NOT NULL
);

CREATE TABLE submissions (
    id BIGINT PRIMARY KEY,
    project TEXT NOT NULL,
    key TEXT,
    content BYTEA NOT NULL,
    build BYTEA,
    jobs BYTEA NOT NULL
);
CREATE UNIQUE INDEX submissions_key ON submissions (project, key) WHERE key IS NOT NULL;
-- Equal submissions may be joined.
CREATE INDEX submissions_content ON submissions (content, id);

CREATE TABLE builds (
    id BYTEA PRIMARY KEY,
    doc TEXT NOT NULL
);

-- What waits for the same thing, while something does.
CREATE TABLE groups (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    reason TEXT
);

CREATE TABLE jobs (
    id BYTEA PRIMARY KEY,
    submission BIGINT NOT NULL,
    project TEXT NOT NULL,
    build BYTEA,
    spec BYTEA NOT NULL,
    state BIGINT NOT NULL,
    -- The group of a pending job.
    queue BIGINT,
    priority BIGINT NOT NULL,
    rank BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    ready_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    token BYTEA,
    place BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    lost_needs BIGINT NOT NULL,
    server TEXT,
    backend TEXT,
    cancel_requested BOOLEAN NOT NULL,
    released TEXT,
    progress BIGINT NOT NULL,
    log_bytes BIGINT NOT NULL,
    log_cut BOOLEAN NOT NULL,
    doc TEXT NOT NULL
-- Room on each page for the rows' next versions: where no index looks at what changed, none is written.
) WITH (fillfactor = 60);
CREATE INDEX jobs_state ON jobs (state, id);
CREATE INDEX jobs_build ON jobs (build, id) WHERE build IS NOT NULL;
CREATE INDEX jobs_submission ON jobs (submission);
CREATE INDEX jobs_spec ON jobs (spec);
CREATE INDEX jobs_queue ON jobs (queue, priority DESC, rank DESC, id, not_before) WHERE queue IS NOT NULL;
CREATE INDEX jobs_lease ON jobs (lease_until) WHERE state = 2;
CREATE INDEX jobs_token ON jobs (token) WHERE state = 2;
CREATE INDEX jobs_backend ON jobs (backend) WHERE state = 2;
CREATE INDEX jobs_project ON jobs (project) WHERE state = 2;
CREATE INDEX jobs_server ON jobs (server) WHERE state = 2 AND cancel_requested;

CREATE TABLE waits (
    needs BYTEA NOT NULL,
    job BYTEA NOT NULL,
    PRIMARY KEY (needs, job)
);
CREATE INDEX waits_job ON waits (job);

-- Blocked jobs, and how many of the jobs that they wait for have not succeeded.
CREATE TABLE blocked (
    job BYTEA PRIMARY KEY,
    needs BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE attempts (
    job BYTEA NOT NULL,
    number BIGINT NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (job, number)
);

CREATE TABLE progress (
    job BYTEA NOT NULL,
    attempt BIGINT NOT NULL,
    number BIGINT NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (job, attempt, number)
);

CREATE TABLE logs (
    job BYTEA NOT NULL,
    start BIGINT NOT NULL,
    bytes BYTEA NOT NULL,
    PRIMARY KEY (job, start)
);

-- Tokens of claims, until the leases end that they asked for.
CREATE TABLE tokens (
    token BYTEA PRIMARY KEY,
    until BIGINT NOT NULL
);
CREATE INDEX tokens_until ON tokens (until);

-- How many jobs are blocked or pending.
CREATE TABLE counters (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    waiting BIGINT NOT NULL
);
INSERT INTO counters VALUES (1, 0);
";

/// Whoever writes a log is told when there is no room. Events have the numbers in which they were committed.
const LOGS_AND_EVENTS: &str = "
ALTER TABLE jobs DROP COLUMN log_cut;

CREATE TABLE events (
    seq BIGINT PRIMARY KEY,
    project TEXT NOT NULL,
    job BYTEA,
    build BYTEA,
    doc TEXT NOT NULL
);
CREATE INDEX events_job ON events (job, seq) WHERE job IS NOT NULL;
CREATE INDEX events_build ON events (build, seq) WHERE build IS NOT NULL;
ALTER TABLE counters ADD COLUMN events BIGINT NOT NULL DEFAULT 0;
";

/// Ended jobs are found by the time of their end, and with what they still have.
const ENDED: &str = "
ALTER TABLE jobs
    ADD COLUMN package TEXT NOT NULL DEFAULT '',
    ADD COLUMN arch TEXT NOT NULL DEFAULT '',
    -- While the job has come to its end.
    ADD COLUMN ended_at BIGINT,
    -- What its artifacts take, until they are removed.
    ADD COLUMN artifact_bytes BIGINT NOT NULL DEFAULT 0,
    -- What its logs take among the artifacts.
    ADD COLUMN archived_bytes BIGINT NOT NULL DEFAULT 0;
UPDATE jobs SET
    package = coalesce(doc::json #>> '{facts,package,name}', doc::json #>> '{facts,config_name}', ''),
    arch = doc::json #>> '{facts,arch}',
    artifact_bytes = (SELECT coalesce(sum((made ->> 'size_bytes')::bigint), 0)
        FROM json_array_elements(doc::json -> 'artifacts') made),
    archived_bytes = (SELECT coalesce(sum((a.doc::json #>> '{log,stored_bytes}')::bigint), 0)
        FROM attempts a WHERE a.job = jobs.id),
    ended_at = CASE WHEN state > 2
        THEN (extract(epoch FROM (doc::json ->> 'finished_at')::timestamptz) * 1000000)::bigint END;
CREATE INDEX jobs_ended ON jobs (ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_artifacts ON jobs (ended_at, id, artifact_bytes) WHERE artifact_bytes > 0;
CREATE INDEX jobs_logs ON jobs (ended_at, id, archived_bytes) WHERE archived_bytes > 0;
CREATE INDEX jobs_newest ON jobs (project, package, arch, ended_at, id) WHERE state = 3;
";

/// Backends by their keys, with the order in which they came.
const FLEET: &str = "
CREATE TABLE backends (
    key TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    doc TEXT NOT NULL
);
";

/// Builds are listed by project and state; jobs are found by their results, and packages by what they took.
const BUILDS: &str = "
ALTER TABLE builds
    ADD COLUMN project TEXT NOT NULL DEFAULT 'default',
    -- Where it is, numbered as `BuildState::ALL`.
    ADD COLUMN state BIGINT NOT NULL DEFAULT 0,
    -- What is known of it from the beginning.
    ADD COLUMN facts TEXT NOT NULL DEFAULT '{}';
UPDATE builds SET project = doc::json ->> 'project';
-- The counts are those of `JobState::ALL`.
UPDATE builds SET state = CASE
    WHEN (doc::json #>> '{counts,0}')::bigint + (doc::json #>> '{counts,1}')::bigint + (doc::json #>> '{counts,2}')::bigint > 0 THEN
        CASE WHEN (doc::json #>> '{counts,2}')::bigint + (doc::json #>> '{counts,3}')::bigint + (doc::json #>> '{counts,4}')::bigint
            + (doc::json #>> '{counts,5}')::bigint + (doc::json #>> '{counts,6}')::bigint = 0 THEN 0 ELSE 1 END
    WHEN (doc::json #>> '{counts,4}')::bigint + (doc::json #>> '{counts,5}')::bigint + (doc::json #>> '{counts,6}')::bigint = 0 THEN 2
    WHEN (doc::json #>> '{counts,5}')::bigint > 0 AND (doc::json #>> '{counts,4}')::bigint = 0 THEN 5
    WHEN (doc::json #>> '{counts,3}')::bigint = 0 THEN 3
    ELSE 4 END;
CREATE INDEX builds_project ON builds (project, id);
CREATE INDEX builds_state ON builds (state, id);

ALTER TABLE jobs
    -- Names what the success of a job came from; of jobs that were there before, nobody knows.
    ADD COLUMN result BYTEA,
    -- How long its attempt took in milliseconds when it made packages.
    ADD COLUMN took BIGINT;
CREATE INDEX jobs_result ON jobs (result, ended_at, id) WHERE state = 3 AND result IS NOT NULL;
CREATE INDEX jobs_took ON jobs (project, arch, package, ended_at, id, took) WHERE state = 3 AND took IS NOT NULL;
CREATE INDEX jobs_package ON jobs (package, id);
";

/// What runs on a backend is counted in cores and bytes too; jobs that were there before asked for nothing.
const RESOURCES: &str = "
ALTER TABLE jobs
    ADD COLUMN cpu_millis BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN memory_bytes BIGINT NOT NULL DEFAULT 0;
";

/// Jobs are found by the files beside their definitions, and listed by project. Documents are read as text: one of a job whose
/// step printed a NUL is no JSON to PostgreSQL. Within a text of JSON the quotes of this pattern would be escaped.
const SOURCES: &str = r#"
ALTER TABLE jobs ADD COLUMN source TEXT;
UPDATE jobs SET source = substring(doc FROM '"source":"(sha256:[0-9a-f]{64})"') WHERE doc LIKE '%"source":"sha256:%';
CREATE INDEX jobs_source ON jobs (source) WHERE source IS NOT NULL;
CREATE INDEX jobs_of_project ON jobs (project, id);
"#;
