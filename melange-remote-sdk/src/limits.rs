//! Every bound of the SDK in one place, with its reason. Units stand last in the names.

use std::time::Duration;

/// A submitted request body: the whole corpus of a distribution is 9.5 MB, so three of them fit.
pub const REQUEST_BODY_BYTES_MAX: usize = 32 << 20;
/// One definition: the largest of 3,401 real ones is 68 KB.
pub const DEFINITION_BYTES_MAX: usize = 2 << 20;
/// Inline pipelines of a job: a distribution's own folder holds fewer than 100.
pub const INLINE_PIPELINES_MAX: usize = 1_000;
/// The longest path of an inline pipeline.
pub const PIPELINE_PATH_BYTES_MAX: usize = 255;
/// One variable of a definition once resolved.
pub const VARIABLE_BYTES_MAX: usize = 64 << 10;
/// All variables of a definition once resolved; every step's scope holds them.
pub const VARIABLES_BYTES_MAX: usize = 1 << 20;
/// Variables and transforms of a definition.
pub const VARIABLES_MAX: usize = 5_000;
/// All regular expressions of a definition's transforms; real ones have 20 bytes each.
pub const PATTERNS_BYTES_MAX: usize = 32 << 10;
/// States of all their automata, as told from their parsed form; compiling a million takes seconds.
pub const PATTERNS_STATES_MAX: u64 = 50_000;
/// The program of one regular expression, a second bound beside the states that were told.
pub const PATTERN_PROGRAM_BYTES_MAX: usize = 4 << 20;
/// Text that all transforms of a definition may search through, matches counted with what was left of the text.
pub const PATTERNS_SCANNED_BYTES_MAX: usize = 64 << 20;
/// One text of a definition once its variables are replaced.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// All texts of a definition once ranges are expanded and variables replaced.
pub const EXPANDED_BYTES_MAX: usize = 64 << 20;
/// Mistakes told of one definition.
pub const DIAGNOSTICS_MAX: usize = 100;
/// Nesting of `uses` and `pipeline`: real definitions nest two deep.
pub const PIPELINE_DEPTH_MAX: usize = 32;
/// Steps of one compiled definition, subpackages included.
pub const STEPS_MAX: usize = 20_000;
/// Subpackages of one definition after range expansion: the largest real one has 100.
pub const SUBPACKAGES_MAX: usize = 5_000;
/// The name of a definition's file, and of a package asked for.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// The commit and the licence of a definition, each.
pub const ORIGIN_BYTES_MAX: usize = 512;
/// Packages that a submission adds to the environments of tests.
pub const TEST_PACKAGES_MAX: usize = 200;
/// Requested labels of one job.
pub const LABELS_MAX: usize = 64;
/// The longest label key or value.
pub const LABEL_BYTES_MAX: usize = 253;
/// Backends of one server.
pub const BACKENDS_MAX: usize = 10_000;
/// A backend address.
pub const BACKEND_ADDR_BYTES_MAX: usize = 1_024;
/// Jobs that one backend runs at once unless it says otherwise.
pub const JOBS_PER_BACKEND_DEFAULT: u32 = 4;
/// The most jobs that one backend may be configured to run at once.
pub const JOBS_PER_BACKEND_MAX: u32 = 10_000;
/// The greatest weight of a project: how many running jobs it gets for one of another.
pub const PROJECT_WEIGHT_MAX: u32 = 1_000;
/// Failures in a row of attempts on a backend before it gets no more jobs.
pub const BREAKER_FAILURES: usize = 3;
/// The size in bytes of the message that a backend's failure is kept with.
pub const BACKEND_FAILURE_BYTES_MAX: usize = 1_000;
/// As how many different backends one address is remembered to have been removed.
pub const REMOVED_SPECS_MAX: usize = 16;
/// How long a backend that failed is left alone; it doubles with every further failure.
pub const BREAKER_PAUSE: Duration = Duration::from_secs(1);
/// The longest time that it is left alone: what came back is found soon.
pub const BREAKER_PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long the job of one server that shows whether a backend works again keeps the other servers from trying too.
pub const BREAKER_TRIAL: Duration = Duration::from_secs(60);
/// How long a server's word that a backend is in its configuration holds, so that what a server that died had configured
/// is told no longer; it is given again at half of that.
pub const BACKENDS_CONFIGURED: Duration = Duration::from_secs(60);
/// What a server saw of one backend and has not told the others yet; of more the newest are kept.
pub const OBSERVATIONS_MAX: usize = 16;
/// The time between two probes of a backend that answers.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a probe may take.
pub const PROBE: Duration = Duration::from_secs(10);
/// Probes under way at once.
pub const PROBES_MAX: usize = 64;
/// How long a job is tried again whose attempts break off before their first step: they cost no attempt, and the
/// backend may come back.
pub const BACKEND_TROUBLE: Duration = Duration::from_secs(10 * 60);
/// How long storing is repeated for packages that were built before the attempt is given up, and how long a call on the
/// job store is repeated by an attempt that keeps its lease.
pub const STORE_TROUBLE: Duration = Duration::from_secs(10 * 60);
/// How long storing is repeated that the storage refuses: it takes some seconds until a new bucket or a changed right
/// is known everywhere.
pub const STORE_REFUSED: Duration = Duration::from_secs(10);
/// How long a storage may take to answer when it is tried for the first time.
pub const STORAGE_CHECK: Duration = Duration::from_secs(10);
/// How long a put that failed waits for the removal of what it has sent.
pub const UPLOAD_ABORT_WAIT: Duration = Duration::from_secs(10);
/// The longest pause before a job is tried again.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Jobs kept by the memory store; the oldest finished ones leave first.
pub const MEMORY_JOBS_MAX: usize = 100_000;
/// Jobs that may wait; beyond it a submission is refused.
pub const PENDING_JOBS_MAX: usize = 50_000;
/// Jobs that may wait in a database.
pub const DATABASE_PENDING_JOBS_MAX: usize = 500_000;
/// Texts and logs kept by the memory store, in bytes; the logs and jobs that finished first leave first.
pub const MEMORY_STORE_BYTES_MAX: usize = 2 << 30;
/// Steps whose times are kept with a job; the log has all of them.
pub const STEPS_RECORDED_MAX: usize = 2_000;
/// Bytes of a log handed out by one read.
pub const LOG_READ_BYTES_MAX: usize = 1 << 20;
/// Bytes of log lines written to the job store at once.
pub const LOG_WRITE_BYTES: usize = 256 << 10;
/// Bytes of a block of a log, with and without its text compressed: a write, and a line that went beyond it.
pub const LOG_BLOCK_BYTES_MAX: usize = 4 * LOG_WRITE_BYTES;
/// Lines that make a block of an archived log, however short they are.
pub const LOG_BLOCK_LINES: u64 = 1_000;
/// The index of an archived log: a few bytes for each of its blocks.
pub const LOG_INDEX_BYTES_MAX: usize = 16 << 20;
/// The newest blocks of running attempts, with what is made of them, that are kept for those who follow.
pub const LOG_BLOCKS_KEPT_BYTES_MAX: usize = 96 << 20;
/// What the forms of a line take together, apart from three times its text.
pub const LOG_LINE_FORMS_BYTES: usize = 256;
/// Those who follow logs on one server at once.
pub const LOG_FOLLOWERS_MAX: usize = 2_000;
/// Lines of one message to a follower, and bytes of their texts.
pub const LOG_MESSAGE_LINES: usize = 500;
/// See [`LOG_MESSAGE_LINES`].
pub const LOG_MESSAGE_BYTES: usize = 64 << 10;
/// Silence of a server on a connection before it says that it is there.
pub const STREAM_PING: Duration = Duration::from_secs(15);
/// What is looked for in a log.
pub const LOG_PATTERN_BYTES_MAX: usize = 256;
/// The compiled form of that, and what it may use while it looks.
pub const LOG_PATTERN_SIZE_MAX: usize = 1 << 20;
/// Lines that one search tells.
pub const LOG_HITS_MAX: usize = 1_000;
/// How long one search looks through a log.
pub const LOG_SEARCH_TIME: Duration = Duration::from_secs(2);
/// Searches in logs at once.
pub const LOG_SEARCHES_MAX: usize = 4;
/// Events that a server keeps in memory for those who follow them, the newest ones.
pub const EVENTS_FED_MAX: usize = 10_000;
/// Events told by one read.
pub const EVENTS_PER_READ_MAX: usize = 1_000;
/// Events that a store in memory keeps, the newest ones.
pub const EVENTS_KEPT_IN_MEMORY: usize = 100_000;
/// Events that a database keeps, the newest ones: about half a gigabyte.
pub const EVENTS_KEPT: u64 = 1_000_000;
/// Lines of the end of a log that may be asked for.
pub const LOG_TAIL_MAX: usize = 100_000;
/// What a job store takes of a log behind its own bound, so that what is missing is told: a few lines.
pub const LOG_LAST_WORD_BYTES: usize = 4 << 10;
/// Logs of ended attempts that a server puts among the artifacts at once.
pub const LOGS_ARCHIVED_AT_ONCE: usize = 4;
/// How long the server that ran an attempt has for that before others do it.
pub const LOG_ARCHIVE_WAIT: Duration = Duration::from_secs(30);
/// Jobs on one page of a listing.
pub const PAGE_ITEMS_MAX: usize = 1_000;
/// An idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// A log of one job unless the operator says otherwise: its first half and its last half; what is between them is
/// counted and left out.
pub const JOB_LOG_BYTES: u64 = 64 << 20;
/// The least that an operator may allow for the log of a job: a few hundred lines.
pub const JOB_LOG_BYTES_MIN: u64 = 64 << 10;
/// The most that an operator may allow for the log of a job.
pub const JOB_LOG_BYTES_MAX: u64 = 16 << 30;
/// One log line; longer ones are cut and say so.
pub const LOG_LINE_BYTES_MAX: usize = 16 << 10;
/// Log lines shown with a failed step.
pub const LOG_TAIL_LINES: usize = 40;
/// The least of them that each of the two streams has.
pub const LOG_TAIL_STREAM_LINES: usize = 10;
/// The last lines of a failed step among which its error is looked for: a parallel build tells its first error some
/// hundred lines before its end.
pub const FAILURE_LINES: usize = 400;
/// What is kept of them while the step runs, in bytes: nearly always all of them.
pub const FAILURE_LINES_BYTES_MAX: usize = 128 << 10;
/// What is looked at, and shown, of each of them in bytes: what is said stands near the beginning.
pub const FAILURE_LINE_BYTES: usize = 1_000;
/// What of a line its normalised form is made from, in bytes.
pub const FAILURE_NORMALISED_FROM_BYTES: usize = 500;
/// The normalised line of a failure, in bytes.
pub const FAILURE_NORMALISED_BYTES_MAX: usize = 200;
/// Lines shown before the line that says what failed.
pub const FAILURE_LINES_BEFORE: usize = 2;
/// Lines shown after it.
pub const FAILURE_LINES_AFTER: usize = 3;
/// An artifact key.
pub const ARTIFACT_KEY_BYTES_MAX: usize = 1_024;
/// Artifacts from this size on are uploaded in parts.
pub const ARTIFACT_PART_BYTES: u64 = 8 << 20;
/// Small artifacts written to a local directory at once. Each waits for the disk on a thread of its own: with many at once
/// none is written sooner, and those who wait for an answer of the server get less of the processor.
pub const LOCAL_WRITES_MAX: usize = 4;
/// A part of such an upload; S3 takes no smaller ones.
pub const UPLOAD_PART_BYTES: usize = 5 << 20;
/// Parts of one artifact under way at once.
pub const ARTIFACT_PARTS_AT_ONCE_MAX: usize = 4;
/// Artifacts returned by one listing.
pub const ARTIFACTS_LISTED_MAX: usize = 10_000;
/// A compressed repository index: Alpine's main is 0.7 MB, Wolfi's 9 MB.
pub const INDEX_COMPRESSED_BYTES_MAX: u64 = 64 << 20;
/// A decompressed repository index: Wolfi's has about 60 MB.
pub const INDEX_BYTES_MAX: u64 = 256 << 20;
/// What a parsed index takes in memory: Wolfi's comes to about 150 MB.
pub const INDEX_KEPT_BYTES_MAX: usize = 224 << 20;
/// What all parsed indexes that are kept for later take in memory.
pub const INDEXES_KEPT_BYTES_MAX: u64 = 512 << 20;
/// Packages of one index; Wolfi's, with every version ever published, has fewer than 200,000.
pub const INDEX_PACKAGES_MAX: usize = 500_000;
/// Dependencies, provided names and conditions of one package; a package of a whole distribution had 800.
pub const INDEX_WORDS_MAX: usize = 20_000;
/// The description of an index, one line about where it comes from.
pub const INDEX_DESCRIPTION_BYTES_MAX: u64 = 64 << 10;
/// One line of an index; a few packages provide thousands of names.
pub const INDEX_LINE_BYTES_MAX: usize = 1 << 20;
/// How many parsed indexes are kept on disk for the next process; those not used for longest leave first.
pub const INDEX_FORMS_MAX: usize = 16;

/// How far down dependencies may lead from one request. Each level takes stack; the chains of Alpine and Wolfi stay below
/// a tenth of it.
pub const SOLVER_DEPTH_MAX: usize = 300;
/// How often one resolution may look at the dependencies of a package: those that stand for names without a version are looked
/// at again for each that needs them. Environments of a thousand packages stay below a hundredth of it.
pub const SOLVER_VISITS_MAX: usize = 500_000;
/// The signatures before an index or a package: a few hundred bytes for each key.
pub const SIGNATURES_BYTES_MAX: u64 = 1 << 20;
/// A downloaded package; the largest real ones are about 3 GB.
pub const APK_BYTES_MAX: u64 = 8 << 30;
/// The control section of a package once decompressed: descriptions and scripts, a few KB in real ones.
pub const APK_CONTROL_BYTES_MAX: u64 = 8 << 20;
/// Entries of one archive or root filesystem: the largest packages of a distribution have fewer than 100,000, and each
/// entry takes about 400 bytes of memory.
pub const TREE_ENTRIES_MAX: usize = 500_000;
/// Attributes, long names and other records before one entry: Linux allows 64 KiB for each attribute.
pub const TAR_RECORDS_BYTES_MAX: u64 = 1 << 20;
/// Names, link targets, owners and attributes of all entries of an archive, which are kept in memory.
pub const TAR_KEPT_BYTES_MAX: usize = 64 << 20;
/// The same of all packages of a root filesystem.
pub const ROOTFS_KEPT_BYTES_MAX: usize = 128 << 20;
/// The unpacked data of a package that is looked at file by file: the largest real ones have a few GB, and compressed
/// zeros would fill a disk.
pub const APK_UNPACKED_BYTES_MAX: u64 = 16 << 30;
/// Items that one finding of a linter tells: a package's files may all be in one.
pub const LINT_DETAILS_MAX: usize = 10_000;
/// Bytes that they take.
pub const LINT_DETAILS_BYTES_MAX: usize = 1 << 20;
/// What an item of a finding takes besides its paths.
pub const LINT_DETAIL_OVERHEAD_BYTES: usize = 64;
/// Items of one finding that a log tells.
pub const LINT_DETAILS_LOGGED: usize = 100;
/// Findings of one build with all that they tell; those of later packages tell [`LINT_DETAILS_TOLD`] items each.
pub const LINT_BUILD_BYTES_MAX: usize = 16 << 20;
/// Items of one finding that a job tells.
pub const LINT_DETAILS_TOLD: usize = 20;
/// Bytes that they take.
pub const LINT_DETAILS_TOLD_BYTES: usize = 4 << 10;
/// Findings of linters that an attempt of a job keeps: ten for each package of the largest definitions.
pub const LINT_FINDINGS_MAX: usize = 1_000;
/// A path inside a package or root filesystem.
pub const TREE_PATH_BYTES_MAX: usize = 4_096;
/// An assembled root filesystem.
pub const ROOTFS_BYTES_MAX: u64 = 64 << 30;
/// The text of one licence, which a package's SBOM holds: the longest of distributions are collections of some MB.
pub const LICENSE_TEXT_BYTES_MAX: u64 = 16 << 20;
/// The texts of all licences of a definition: each SBOM of its packages holds them.
pub const LICENSE_TEXTS_BYTES_MAX: u64 = 32 << 20;
/// Files with texts of licences that one definition names: real ones name a handful.
pub const LICENSE_FILES_MAX: usize = 1_000;
/// What a guest may leave behind in its output folder.
pub const OUTPUT_BYTES_MAX: u64 = 64 << 30;
/// The least memory of a guest: its launcher needs some of it.
pub const SANDBOX_MEMORY_BYTES_MIN: u64 = 32 << 20;
/// Environment variables of one step of the sandbox: bubblewrap takes three arguments for each, and 9,000 in all.
pub const SANDBOX_VARIABLES_MAX: usize = 2_500;
/// Bytes of one of them, with its name: the kernel takes 128 KiB.
pub const SANDBOX_VARIABLE_BYTES_MAX: usize = 120 << 10;
/// Processes and threads of one guest of the sandbox: a parallel build on a large machine has about a thousand.
pub const SANDBOX_PROCESSES: u64 = 16_384;
/// What one guest of the sandbox writes to its tree: what it may leave behind, and as much again to make it from.
pub const SANDBOX_TREE_BYTES: u64 = 2 * OUTPUT_BYTES_MAX;
/// The size of `/dev/shm` in a guest of the sandbox: what container engines give.
pub const SANDBOX_SHM_BYTES: u64 = 64 << 20;
/// A key of the keyring.
pub const KEY_BYTES_MAX: u64 = 64 << 10;
/// Packages, indexes and root filesystems that are kept for later, unless the operator says otherwise: a farm of a
/// distribution works in about ten environments of 1 to 2 GB.
pub const CACHE_BYTES_DEFAULT: u64 = 20 << 30;
/// Tries of one download, the first included.
pub const DOWNLOAD_TRIES_MAX: u32 = 3;
/// Downloads under way at once.
pub const DOWNLOADS_MAX: usize = 8;
/// Silence on a download before it counts as dead.
pub const DOWNLOAD_IDLE: Duration = Duration::from_secs(60);
/// Connecting to a BuildKit daemon.
pub const BUILDKIT_CONNECT: Duration = Duration::from_secs(10);
/// gRPC messages of a BuildKit daemon: one Status message carries many log lines.
pub const BUILDKIT_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Headers of a BuildKit daemon: a failed step repeats its command line in them.
pub const BUILDKIT_HEADER_BYTES_MAX: u32 = 8 << 20;
/// Chunks sent to a BuildKit daemon; its receiver refuses 4 MiB and more.
pub const BUILDKIT_CHUNK_BYTES: usize = 1 << 20;
/// A marshalled build graph: daemons before Docker 28 refuse messages above 4 MiB; the rest is for the envelope.
pub const BUILDKIT_DEFINITION_BYTES_MAX: usize = (4 << 20) - (64 << 10);
/// Messages of a session's tunnel that wait for the connection; each holds at most one chunk.
pub const BUILDKIT_TUNNEL_QUEUE_MAX: usize = 8;
/// Opening a session on a BuildKit daemon.
pub const BUILDKIT_SESSION_OPEN: Duration = Duration::from_secs(10);
/// Silence of a daemon's log stream after a solve that went well before it counts as ended.
pub const BUILDKIT_STATUS_QUIET: Duration = Duration::from_secs(5);
/// The same after a solve that failed: when it failed before it began, the stream never ends by itself.
pub const BUILDKIT_STATUS_QUIET_FAILED: Duration = Duration::from_millis(1_500);
/// Openings of a daemon's log stream: a busy daemon may not know the build yet at the first one.
pub const BUILDKIT_STATUS_TRIES_MAX: u32 = 3;
/// Silence of a daemon that asked for the session before: it asks every one to five seconds.
pub const BUILDKIT_STALL: Duration = Duration::from_secs(45);
/// Empty messages of a daemon's log stream in a row before it counts as broken: sound daemons send single ones.
pub const BUILDKIT_STATUS_EMPTY_MAX: u32 = 1_000;
/// How long a cancelled build may take to stop before the daemon counts as lost.
pub const BUILDKIT_CANCEL_GRACE: Duration = Duration::from_secs(10);
/// Tries of a solve whose environment another build's end broke off.
pub const BUILDKIT_ENVIRONMENT_TRIES_MAX: u32 = 3;
/// A lease on a claimed job; it is renewed at a third of it.
pub const LEASE: Duration = Duration::from_secs(15);
/// The bounds of a lease that somebody chooses: a shorter one ends while a busy store answers, a longer one keeps the
/// jobs of a dead server.
pub const LEASE_MIN: Duration = Duration::from_secs(3);
/// See [`LEASE_MIN`].
pub const LEASE_MAX: Duration = Duration::from_secs(3_600);
/// For how long what an attempt tells is gathered into one write.
pub const EVENTS_GATHER: Duration = Duration::from_millis(20);
/// How often the scheduler looks when no hint of a change came.
pub const SCHEDULER_POLL: Duration = Duration::from_secs(1);
/// The time between two looks of a scheduler after which it counts as stuck: calls on the store take a third of a lease
/// at most, and a round has a few of them.
pub const SCHEDULER_ROUND_MAX: Duration = Duration::from_secs(30);
/// How long a part of the server may take to answer whether it works.
pub const READINESS_CHECK: Duration = Duration::from_secs(2);
/// For how long that answer is told to others, so that probes cost nothing.
pub const READINESS_KEPT: Duration = Duration::from_secs(1);
/// The least time from one look of the scheduler at the queue to the next one.
pub const SCHEDULER_GATHERS: Duration = Duration::from_millis(5);
/// Claims of one round of the scheduler.
pub const CLAIMS_PER_ROUND_MAX: usize = 1_000;
/// How long a job may wait that no backend could run before it is given up.
pub const UNMATCHED_WAIT: Duration = Duration::from_secs(60 * 60);
/// The pause before a job's second attempt; it doubles with every further one.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a cancelled builder may take to stop by itself before its task is dropped.
pub const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// Leases renewed by one call.
pub const LEASES_PER_CALL_MAX: usize = 10_000;
/// What is told of an object store's own words, in bytes.
pub const STORE_ANSWER_BYTES_MAX: usize = 300;
/// Checksums read at once while artifacts are listed.
pub const CHECKSUM_READS_MAX: usize = 16;
/// The time that a build may take whose definition says nothing.
pub const JOB_TIMEOUT: Duration = Duration::from_secs(2 * 3_600);
/// The time that a step may be silent: the longest silent compilers take minutes.
pub const JOB_SILENCE: Duration = Duration::from_secs(30 * 60);
/// Bodies of requests that are being read, all together.
pub const REQUEST_BODIES_BYTES_MAX: usize = 128 << 20;
/// Silence of a client within the body of a request.
pub const REQUEST_BODY_IDLE: Duration = Duration::from_secs(30);
/// The time that the body of a request may take.
pub const REQUEST_BODY_TIME: Duration = Duration::from_secs(5 * 60);
/// Submissions that a server takes each second unless its operator says otherwise: more than its database does.
pub const SUBMIT_RATE: u32 = 1_000;
/// The most that an operator may allow, short of no bound.
pub const SUBMIT_RATE_MAX: u32 = 1_000_000;
/// Submissions at that rate that may come at once after a quiet time.
pub const SUBMIT_BURST: Duration = Duration::from_secs(10);
/// When whoever was refused for the time being may come again, where nobody knows better.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Bytes that are still taken, and thrown away, of a request that was refused before its end, so that its client reads
/// the answer instead of a broken connection: twice what a body may have.
pub const REQUEST_DRAIN_BYTES_MAX: usize = 2 * REQUEST_BODY_BYTES_MAX;
/// The time that this may take.
pub const REQUEST_DRAIN_TIME: Duration = Duration::from_secs(30);
/// Silence of the client while it does.
pub const REQUEST_DRAIN_IDLE: Duration = Duration::from_secs(5);
/// How long a client may take nothing of its answer.
pub const RESPONSE_STALL: Duration = Duration::from_secs(30);
/// What one connection to the server keeps of what it reads, and of what it is to write; the headers of a request fit
/// into it.
pub const CONNECTION_BUFFER_BYTES: usize = 64 << 10;
/// Attempts of one job that the farm broke off before it is given up.
pub const ATTEMPTS_MIN: u32 = 5;
/// And for how long at least, counted from the first attempt that broke off.
pub const RETRIED_FOR_MIN: Duration = Duration::from_secs(600);
/// How long a stopping server waits for running jobs before it cancels them for good.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);
/// Lines that may wait between a builder and its reader before the builder is asked to slow down.
pub const EVENT_QUEUE_MAX: usize = 16_384;
/// Bytes of those lines.
pub const EVENT_QUEUE_BYTES_MAX: usize = 1 << 20;
/// Files and folders beside a definition that are looked at, and files of their archive.
pub const SOURCE_FILES_MAX: usize = 100_000;
/// The path of such a file, so that it fits into what the system takes behind the path of any folder of state.
pub const SOURCE_PATH_BYTES_MAX: usize = 2_048;
/// All such paths together, with those of their folders.
pub const SOURCE_PATHS_BYTES_MAX: usize = 32 << 20;
/// The longest part of such a path: what file systems take.
pub const SOURCE_NAME_BYTES_MAX: usize = 255;
/// The file that says which files beside a definition are no source files.
pub const SOURCE_IGNORE_BYTES_MAX: u64 = 64 << 10;
/// The patterns of such a file.
pub const SOURCE_IGNORE_PATTERNS_MAX: usize = 1_000;
/// The program that its patterns come to; a pattern of a few words has some hundred bytes.
pub const SOURCE_IGNORE_PROGRAM_BYTES_MAX: usize = 2 << 20;
/// The archive of the files beside a definition: patches have kilobytes, and what is larger is fetched by the definition.
pub const SOURCE_ARCHIVE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of an archive that are read and sent at once.
pub const SOURCE_CHUNK_BYTES: usize = 256 << 10;
/// Archives that a server takes at once, together.
pub const SOURCE_ARCHIVES_BYTES_MAX: u64 = 4 * SOURCE_ARCHIVE_BYTES_MAX;
/// The time that the body of a request with an archive may take.
pub const SOURCE_ARCHIVE_TIME: Duration = Duration::from_secs(10 * 60);
/// How long the artifact storage may take to give an archive to an attempt: as long as a client may take to send it.
pub const SOURCE_ARCHIVE_FETCH_TIME: Duration = SOURCE_ARCHIVE_TIME;
/// How long an archive that no job needs is kept from the time when it was sent or asked for last: whoever sends one has
/// so long to hand in the job that names it.
pub const SOURCE_ARCHIVE_KEPT: Duration = Duration::from_secs(2 * 86_400);
/// One source that a definition names by a checksum: the largest of a distribution have some 3 GB.
pub const FETCHED_SOURCE_BYTES_MAX: u64 = 4 << 30;
/// What one job may have of such sources, all together; those that are fetched at the same time do not count the others.
pub const FETCHED_JOB_BYTES_MAX: u64 = 16 << 30;
/// Sources that are fetched for one job; steps fetch the others themselves.
pub const FETCHED_JOB_SOURCES_MAX: usize = 500;
/// Sources of one job that are fetched at once.
pub const FETCHED_JOB_AT_ONCE: usize = 4;
/// How long all sources of one job may take to come; what did not come is left to its steps.
pub const FETCHED_JOB_TIME: Duration = Duration::from_secs(30 * 60);
/// After which time without a source the job's log says that it waits for them.
pub const FETCHED_JOB_QUIET: Duration = Duration::from_secs(10);
/// Sources that a server downloads at once.
pub const FETCHED_AT_ONCE: usize = 16;
/// How long a download waits for its turn among them, so that slow ones do not hold up the builds of others.
pub const FETCHED_TURN: Duration = Duration::from_secs(60);
/// The time that a download may take, its tries together.
pub const FETCHED_TIME: Duration = Duration::from_secs(20 * 60);
/// Silence on such a download before it counts as dead.
pub const FETCHED_IDLE: Duration = Duration::from_secs(30);
/// How long the artifact storage may take to give such a source, or to take it.
pub const FETCHED_STORAGE_TIME: Duration = Duration::from_secs(10 * 60);
/// Addresses of one source that are tried.
pub const FETCH_URIS_MAX: usize = 8;
/// An address of a source.
pub const FETCH_URI_BYTES_MAX: usize = 2_048;
/// A client connecting to a server.
pub const CLIENT_CONNECT: Duration = Duration::from_secs(10);
/// Silence of a server on a connection before a client counts it as dead; a followed log may be quiet while a
/// compiler works.
pub const CLIENT_IDLE: Duration = Duration::from_secs(3_600);
/// The pause before a request is sent again; it doubles with every further one.
pub const CLIENT_PAUSE: Duration = Duration::from_millis(400);
/// How long a client goes on asking a server that is too busy and says when to ask again.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(60);
/// Tries of one request of a server that says nothing, the first included.
pub const CLIENT_TRIES_MAX: u32 = 4;
/// Backends on which a job failed that are kept with it, the latest ones.
pub const BACKENDS_AVOIDED_MAX: usize = 8;
/// Jobs of one submission.
pub const SUBMISSION_JOBS_MAX: usize = 20_000;
/// Jobs that one job may wait for.
pub const WAITS_FOR_MAX: usize = 2_000;
/// Ready jobs of one group that are counted; of more it is only known that there are as many.
pub const DEMAND_COUNT_MAX: usize = 1_000;
/// Jobs that one call settles: expired leases, jobs given up.
pub const SETTLED_PER_CALL_MAX: usize = 1_000;
/// Rows of progress in one call.
pub const PROGRESS_ROWS_MAX: usize = 1_000;
/// How often a server asks which of its jobs shall stop when no hint came.
pub const CANCEL_POLL: Duration = Duration::from_secs(1);
/// Attempts of a job that are kept, the latest ones.
pub const ATTEMPTS_KEPT_MAX: usize = 1_000;
/// Groups that are told of at once, those with the most urgent jobs.
pub const DEMAND_GROUPS_MAX: usize = 10_000;
/// The last jobs of a package whose durations count towards what the next one is expected to take.
pub const DURATIONS_OF_PACKAGE: usize = 5;
/// Packages whose durations are told at once: several distributions.
pub const DURATIONS_MAX: usize = 50_000;
/// The document of a build once decompressed: that of 3,401 packages has 9 MB.
pub const BUILD_DOCUMENT_BYTES_MAX: usize = 256 << 20;
/// What a server keeps in memory of the documents and indexes of builds, and of what their jobs made.
pub const BUILD_FILES_KEPT_BYTES_MAX: u64 = 384 << 20;
/// What a server keeps in memory of the indexes that list what builds have made: a whole distribution's has some MB.
pub const BUILD_INDEXES_KEPT_BYTES_MAX: u64 = 64 << 20;
/// What was asked for in a build, in a few words.
pub const BUILD_TITLE_BYTES_MAX: usize = 200;
/// Packages that are published at once.
pub const PUBLISHED_AT_ONCE: usize = 16;
/// Jobs whose packages come into one index together at most.
pub const PUBLISHED_JOBS_MAX: usize = 1_000;
/// Jobs of which a server remembers why it did not publish what they made.
pub const REFUSED_PUBLICATIONS_KEPT: u64 = 10_000;
/// How often a server looks for what others have published when no hint came.
pub const PUBLISH_POLL: Duration = Duration::from_secs(30);
/// The longest rest of a publisher after it wrote indexes; it rests for as long as it worked.
pub const PUBLISH_REST_MAX: Duration = Duration::from_secs(10);
/// Small files of a build that are read at once.
pub const BUILD_READS_MAX: usize = 16;
/// Builds in a list for clients of melange2, which has no pages: the newest ones.
pub const MELANGE2_BUILDS_MAX: usize = 100;
/// Packages of all builds in such a list; builds that go beyond it are left out, but for the newest one.
pub const MELANGE2_PACKAGES_MAX: usize = 20_000;
/// Waits of one submission, all jobs together.
pub const SUBMISSION_WAITS_MAX: usize = 200_000;
/// How long ended jobs are kept unless the operator says otherwise; most is small then, for their logs are gone.
pub const KEEP_JOBS: Duration = Duration::from_secs(365 * 86_400);
/// How long their logs are kept: a failure is looked at in the next release cycle at the latest.
pub const KEEP_LOGS: Duration = Duration::from_secs(90 * 86_400);
/// How long their artifacts are kept.
pub const KEEP_ARTIFACTS: Duration = Duration::from_secs(14 * 86_400);
/// Of a job that ended less long ago nothing is removed: whoever waited for it fetches what it made.
pub const RETENTION_RECENT: Duration = Duration::from_secs(10 * 60);
/// Ended jobs that are looked at together; what is known of them is as old as the removals of one page take.
pub const RETENTION_PAGE: usize = 100;
/// Objects and jobs removed each second, so that storages and databases have time for builds.
pub const REMOVALS_PER_SECOND: u32 = 100;
/// Jobs of which something is removed in one pass; its report holds all of them.
pub const REMOVALS_PER_PASS_MAX: usize = 50_000;
/// Removals that fail in a row before a pass gives up.
pub const REMOVAL_FAILURES_MAX: u32 = 20;
/// Objects of a job that nobody knows are removed when it was handed in longer ago than this.
pub const ORPHAN_AGE: Duration = Duration::from_secs(86_400);
/// The time from the start of a server to its first pass, about.
pub const RETENTION_FIRST: Duration = Duration::from_secs(5 * 60);
/// The time from one pass to the next one, about.
pub const RETENTION_EVERY: Duration = Duration::from_secs(10 * 60);
/// Every so many passes one looks for objects of unknown jobs.
pub const ORPHANS_EVERY: u32 = 6;
/// Patterns of paths in a request for a plan.
pub const PLAN_GLOBS_MAX: usize = 1_000;
/// Definitions of a plan, for each architecture.
pub const PLAN_DEFINITIONS_MAX: usize = 20_000;
/// Needs of definitions for each other in a plan, for each architecture: ten times those of a distribution of 3,400.
pub const PLAN_EDGES_MAX: usize = 400_000;
/// Members of a group of definitions that need each other, times their needs: what finding its cuts takes grows with it.
pub const PLAN_CORE_WORK_MAX: usize = 500_000_000;
/// Entries of an environment that are looked at together; those of a larger one are looked at one by one.
pub const PLAN_NEEDS_TOGETHER_MAX: usize = 1_000;
/// Repositories and keys of definitions that cannot be had, each of which may cost the patience of its downloads, before
/// planning is given up.
pub const PLAN_PLACES_UNREAD_MAX: usize = 20;
/// What is told of why one of them cannot be had, in bytes.
pub const PLAN_UNREAD_REASON_BYTES_MAX: usize = 500;
/// What a job is expected to take when it is not known of any how long it took.
pub const PLAN_JOB_DURATION: Duration = Duration::from_secs(180);
/// How long the definitions of a git repository may take to come: those of a distribution of 3,400 take seconds.
pub const GIT_TIME: Duration = Duration::from_secs(5 * 60);
/// Git repositories that a server reads at once.
pub const GIT_FETCHES_MAX: usize = 4;
/// Silence of a git server before it counts as dead.
pub const GIT_SILENCE: Duration = Duration::from_secs(30);
/// Redirections of a git server that are followed, one after the other.
pub const GIT_REDIRECTS_MAX: usize = 3;
/// What one file of git on the disk may have, such as a pack of all that is fetched at once.
pub const GIT_PACK_BYTES_MAX: u64 = 512 << 20;
/// The address space of git: packs are looked at through windows, and files in them are not held whole.
pub const GIT_MEMORY_BYTES_MAX: u64 = 2 << 30;
/// The address of a repository.
pub const GIT_URL_BYTES_MAX: usize = 2_048;
/// A branch, a tag or another reference.
pub const GIT_REFERENCE_BYTES_MAX: usize = 255;
/// What a server tells of the references that were asked for.
pub const GIT_REFERENCES_BYTES_MAX: u64 = 1 << 20;
/// A pattern of paths.
pub const GIT_GLOB_BYTES_MAX: usize = 1_000;
/// Files and folders of one commit: a distribution of 3,400 definitions has 6,000.
pub const GIT_ENTRIES_MAX: usize = 300_000;
/// Their names as git lists them.
pub const GIT_LISTING_BYTES_MAX: u64 = 64 << 20;
/// Links of one commit.
pub const GIT_LINKS_MAX: usize = 10_000;
/// Links that are followed from one path.
pub const GIT_LINKS_FOLLOWED_MAX: usize = 40;
/// Where a link leads.
pub const GIT_LINK_BYTES_MAX: u64 = 4_096;
/// All definitions and pipelines of a source; those of a whole distribution have 9.5 MB.
pub const GIT_TEXTS_BYTES_MAX: u64 = 64 << 20;
/// All files beside the definitions of a source.
pub const GIT_SOURCES_BYTES_MAX: u64 = 1 << 30;
/// Such files.
pub const GIT_SOURCE_FILES_MAX: usize = 200_000;
