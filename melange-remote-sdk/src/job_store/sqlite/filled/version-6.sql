BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'jobs','2026-11-27 00:35:26',1,X'97EE2F0CE2F29479487EAA4BF1CD4CADB948F03F4FACB30205BC6E0388545CF3707FAD8BC717BF34DD084FDEEAAB11C6',2679521);
INSERT INTO "_sqlx_migrations" VALUES(2,'small rows for what changes often','2026-11-27 00:35:26',1,X'76F9D616F6CCABA0348F8786EB59CBF905C9B2EA3BF228D28BE4A1C8295BE478A43833562EF99DF1913B918209C1DB9F',1561199);
INSERT INTO "_sqlx_migrations" VALUES(3,'logs in blocks, events','2026-11-27 00:35:26',1,X'63077F46A45ACD28C8B1CB514EC2CA5C9967735F241F7C7A78FE05936A35D75E9250EEE92DEB576D557CF78EF9CFC748',2282222);
INSERT INTO "_sqlx_migrations" VALUES(4,'ended jobs by time','2026-11-27 00:35:26',1,X'54A42DDCD1BB9EA8607711620B051A02A1589F824EC5C97840714CCE46CEE88E498857903D502B27EBAC220C3DC54375',2829326);
INSERT INTO "_sqlx_migrations" VALUES(5,'the fleet','2026-11-27 00:40:00',1,X'4B247D3D11ADA2450E7B87D4402760D60252B1909780E55046DFA3AC1D2A7BEA66997E24F7406C2C6F4276C5BB3B9EF6',900000);
INSERT INTO "_sqlx_migrations" VALUES(6,'builds to list, results, durations','2026-11-27 10:30:00',1,X'447459C00FAB8406F498A1A548D92E5334A7712E569D924661376E22A8FAF654F38C99F87AEFC7A29EA30BD1F4A54796',900000);
CREATE TABLE attempts (
    job BLOB NOT NULL,
    number INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
INSERT INTO "attempts" VALUES(X'01A3185C500070008000000000000001',1,'{"number":1,"server":"server-f81f6385298e4cc1ab762e36da2dbd2e","started_at":"2027-01-15T08:00:01Z","ended_at":"2027-01-15T08:00:02Z","outcome":"given_back","counts":true,"error":{"class":"infrastructure","message":"the daemon is gone","step":null},"failure":{"version":1,"signature":"a9d644b2a046ca57","kind":"other","normalised":"the daemon is gone","line":null,"text":"the daemon is gone","extract":[]},"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"steps":[],"phases":[],"tests":[],"log_begin":0,"log_end":14,"log":null,"log_removed_at":null}');
INSERT INTO "attempts" VALUES(X'01A3185C500070008000000000000001',2,'{"number":2,"server":"server-fcee6218363a42d2a829cd3b715ab733","started_at":"2027-01-15T08:00:06Z","ended_at":"2027-01-15T08:00:07Z","outcome":"success","counts":true,"error":null,"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"steps":[],"phases":[],"tests":[],"log_begin":14,"log_end":29,"log":null,"log_removed_at":null}');
INSERT INTO "attempts" VALUES(X'01A3185C500070008000000000000002',1,'{"number":1,"server":"server-a5c6b9ae8f924f9ebd584b956bc71ed5","started_at":"2027-01-15T08:00:08Z","ended_at":null,"outcome":"running","counts":true,"error":null,"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"steps":[],"phases":[],"tests":[],"log_begin":0,"log_end":null,"log":null,"log_removed_at":null}');
INSERT INTO "attempts" VALUES(X'01A3185C500070008000000000000004',1,'{"number":1,"server":"server-a7c154acaced4eca82b4e1da6732f70d","started_at":"2027-01-15T08:00:08Z","ended_at":"2027-01-15T08:00:10Z","outcome":"failed","counts":true,"error":{"class":"build","message":"make failed","step":null},"failure":{"version":1,"signature":"87a0c0883b3feeb2","kind":"compile","normalised":"a.c:<n>: error: \"ü\" is no type","line":8,"text":"a.c:1:2: error: \"ü\" is no type","extract":[{"number":7,"text":"cc -c a.c"},{"number":8,"text":"a.c:1:2: error: \"ü\" is no type"},{"number":9,"text":"make: *** [a.o] Error 1"}]},"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"steps":[],"phases":[],"tests":[],"log_begin":0,"log_end":0,"log":null,"log_removed_at":null}');
CREATE TABLE backends (
    key TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE blocked (
    job BLOB PRIMARY KEY,
    needs INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "blocked" VALUES(X'01A3185C500070008000000000000003',1);
CREATE TABLE builds (
    id BLOB PRIMARY KEY,
    doc TEXT NOT NULL
, project TEXT NOT NULL DEFAULT 'default', state INTEGER NOT NULL DEFAULT 0, facts TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
INSERT INTO "builds" VALUES(X'01A3185C500070008000000000000099','{"id":"build-01a3185c-5000-7000-8000-000000000099","project":"default","created_at":"2027-01-15T08:00:00Z","finished_at":null,"counts":[1,0,1,1,0,0,0]}','default',1,'{}');
CREATE TABLE counters (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    waiting INTEGER NOT NULL
, events INTEGER NOT NULL DEFAULT 0);
INSERT INTO "counters" VALUES(1,2,27);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    job BLOB,
    build BLOB,
    doc TEXT NOT NULL
);
INSERT INTO "events" VALUES(1,'default',X'01A3185C500070008000000000000001',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"pending","arch":"x86_64","attempt":0}}');
INSERT INTO "events" VALUES(2,'default',X'01A3185C500070008000000000000002',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000002","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"blocked","arch":"x86_64","attempt":0,"blocked_by":1}}');
INSERT INTO "events" VALUES(3,'default',X'01A3185C500070008000000000000003',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000003","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"blocked","arch":"x86_64","attempt":0,"blocked_by":1}}');
INSERT INTO "events" VALUES(4,'default',NULL,X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","type":"build.state","data":{"state":"pending"}}');
INSERT INTO "events" VALUES(5,'default',X'01A3185C500070008000000000000004',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000004","type":"job.state","data":{"state":"pending","arch":"x86_64","attempt":0}}');
INSERT INTO "events" VALUES(6,'default',X'01A3185C500070008000000000000005',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000005","type":"job.state","data":{"state":"blocked","arch":"x86_64","attempt":0,"blocked_by":1}}');
INSERT INTO "events" VALUES(7,'default',X'01A3185C500070008000000000000006',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000006","type":"job.state","data":{"state":"pending","arch":"x86_64","attempt":0}}');
INSERT INTO "events" VALUES(8,'other',X'01A3185C500070008000000000000007',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"other","job":"01a3185c-5000-7000-8000-000000000007","type":"job.state","data":{"state":"pending","arch":"aarch64","attempt":0}}');
INSERT INTO "events" VALUES(9,'default',X'01A3185C500070008000000000000001',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:01Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"running","arch":"x86_64","attempt":1,"backend":"tcp://one:1"}}');
INSERT INTO "events" VALUES(10,'default',NULL,X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:01Z","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","type":"build.state","data":{"state":"running"}}');
INSERT INTO "events" VALUES(11,'default',X'01A3185C500070008000000000000001',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:01Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.step","data":{"attempt":1,"index":0,"name":"one","state":"running"}}');
INSERT INTO "events" VALUES(12,'default',X'01A3185C500070008000000000000001',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:01Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.step","data":{"attempt":1,"index":0,"name":"two","state":"running"}}');
INSERT INTO "events" VALUES(13,'default',X'01A3185C500070008000000000000001',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:02Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.attempt","data":{"number":1,"outcome":"given_back","counts":true,"backend":"tcp://one:1","error":"the daemon is gone","error_class":"infrastructure"}}');
INSERT INTO "events" VALUES(14,'default',X'01A3185C500070008000000000000001',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:02Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"pending","arch":"x86_64","attempt":1,"backend":"tcp://one:1","error":"the daemon is gone","error_class":"infrastructure","not_before":"2027-01-15T08:00:05Z"}}');
INSERT INTO "events" VALUES(15,'default',NULL,X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:02Z","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","type":"build.state","data":{"state":"pending"}}');
INSERT INTO "events" VALUES(16,'default',X'01A3185C500070008000000000000001',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:06Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"running","arch":"x86_64","attempt":2,"backend":"tcp://one:1","error":"the daemon is gone","error_class":"infrastructure"}}');
INSERT INTO "events" VALUES(17,'default',NULL,X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:06Z","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","type":"build.state","data":{"state":"running"}}');
INSERT INTO "events" VALUES(18,'default',X'01A3185C500070008000000000000001',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:07Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.attempt","data":{"number":2,"outcome":"success","counts":true,"backend":"tcp://one:1"}}');
INSERT INTO "events" VALUES(19,'default',X'01A3185C500070008000000000000001',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:07Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"success","arch":"x86_64","attempt":2,"backend":"tcp://one:1"}}');
INSERT INTO "events" VALUES(20,'default',X'01A3185C500070008000000000000002',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:07Z","project":"default","job":"01a3185c-5000-7000-8000-000000000002","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"pending","arch":"x86_64","attempt":0}}');
INSERT INTO "events" VALUES(21,'default',X'01A3185C500070008000000000000006',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:03Z","project":"default","job":"01a3185c-5000-7000-8000-000000000006","type":"job.state","data":{"state":"cancelled","arch":"x86_64","attempt":0}}');
INSERT INTO "events" VALUES(22,'default',X'01A3185C500070008000000000000002',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:08Z","project":"default","job":"01a3185c-5000-7000-8000-000000000002","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"running","arch":"x86_64","attempt":1,"backend":"tcp://one:1"}}');
INSERT INTO "events" VALUES(23,'default',X'01A3185C500070008000000000000002',X'01A3185C500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:09Z","project":"default","job":"01a3185c-5000-7000-8000-000000000002","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.cancel_requested","data":{}}');
INSERT INTO "events" VALUES(24,'default',X'01A3185C500070008000000000000004',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:08Z","project":"default","job":"01a3185c-5000-7000-8000-000000000004","type":"job.state","data":{"state":"running","arch":"x86_64","attempt":1,"backend":"tcp://one:1"}}');
INSERT INTO "events" VALUES(25,'default',X'01A3185C500070008000000000000004',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:10Z","project":"default","job":"01a3185c-5000-7000-8000-000000000004","type":"job.attempt","data":{"number":1,"outcome":"failed","counts":true,"backend":"tcp://one:1","error":"make failed","error_class":"build"}}');
INSERT INTO "events" VALUES(26,'default',X'01A3185C500070008000000000000004',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:10Z","project":"default","job":"01a3185c-5000-7000-8000-000000000004","type":"job.state","data":{"state":"failed","arch":"x86_64","attempt":1,"backend":"tcp://one:1","error":"make failed","error_class":"build"}}');
INSERT INTO "events" VALUES(27,'default',X'01A3185C500070008000000000000005',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:10Z","project":"default","job":"01a3185c-5000-7000-8000-000000000005","type":"job.state","data":{"state":"skipped","arch":"x86_64","attempt":0,"error":"config.yaml failed, and this job waits for it","error_class":"dependency","skipped_for":"01a3185c-5000-7000-8000-000000000004"}}');
CREATE TABLE groups (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    reason TEXT
);
INSERT INTO "groups" VALUES(2,'{"project":"other","arch":"aarch64","labels":{},"avoid":[]}','{"text":"no backend has the architecture aarch64","needs_other_backends":true,"kind_since":"2027-01-15T08:00:11Z","since":"2027-01-15T08:00:11Z","noted_at":"2027-01-15T08:00:11Z"}');
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
    doc TEXT NOT NULL
, project TEXT NOT NULL DEFAULT 'default', package TEXT NOT NULL DEFAULT '', arch TEXT NOT NULL DEFAULT '', ended_at INTEGER, artifact_bytes INTEGER NOT NULL DEFAULT 0, archived_bytes INTEGER NOT NULL DEFAULT 0, result BLOB, took INTEGER) WITHOUT ROWID;
INSERT INTO "jobs" VALUES(X'01A3185C500070008000000000000001',1,X'01A3185C500070008000000000000099',X'E56B57F69BAEAFF8EB53DEC4851B3D616E1A4425A4EF2A2BF5A39924F741882A',3,NULL,500,0,-9223372036854775808,1800000002000000,1800000106000000,X'99C7A26FD3DA4285A5F6595CC1E0A23E',0,2,0,'server-fcee6218363a42d2a829cd3b715ab733','tcp://one:1',0,NULL,0,29,'{"id":"01a3185c-5000-7000-8000-000000000001","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"success","version":5,"blocked_by":0,"attempt":2,"counted_attempts":2,"created_at":"2027-01-15T08:00:00Z","ready_at":"2027-01-15T08:00:02Z","started_at":"2027-01-15T08:00:06Z","finished_at":"2027-01-15T08:00:07Z","error":null,"note":null,"waiting":null,"not_before":null,"avoid":["tcp://one:1"],"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"server":"server-fcee6218363a42d2a829cd3b715ab733","cancel_requested":false,"skipped_for":null,"artifacts":[{"name":"x86_64/a.apk","size_bytes":1,"sha256":"0000000000000000000000000000000000000000000000000000000000000000"}],"trouble_since":null,"failing_since":"2027-01-15T08:00:02Z","artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',1800000007000000,1,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A3185C500070008000000000000002',1,X'01A3185C500070008000000000000099',X'E3FBFFBA5D404980334F26FF1E059A78ACED526D6A160834D2BD54C50015788B',2,NULL,500,0,-9223372036854775808,1800000007000000,1800000108000000,X'1EF294DD6B3E43C2BD61947018F3896A',0,1,0,'server-a5c6b9ae8f924f9ebd584b956bc71ed5','tcp://one:1',1,NULL,0,8,'{"id":"01a3185c-5000-7000-8000-000000000002","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"running","version":4,"blocked_by":0,"attempt":1,"counted_attempts":1,"created_at":"2027-01-15T08:00:00Z","ready_at":"2027-01-15T08:00:07Z","started_at":"2027-01-15T08:00:08Z","finished_at":null,"error":null,"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"server":"server-a5c6b9ae8f924f9ebd584b956bc71ed5","cancel_requested":true,"skipped_for":null,"artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',NULL,0,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A3185C500070008000000000000003',1,X'01A3185C500070008000000000000099',X'5AF7F2F9DDF95764DBFBD0E0792B3B6D405A1AAA1F6E3C66CBB3F2F7AC069F75',0,NULL,500,0,-9223372036854775808,9223372036854775807,-377705023201000000,NULL,0,0,0,NULL,NULL,0,NULL,0,0,'{"id":"01a3185c-5000-7000-8000-000000000003","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"blocked","version":1,"blocked_by":1,"attempt":0,"counted_attempts":0,"created_at":"2027-01-15T08:00:00Z","ready_at":null,"started_at":null,"finished_at":null,"error":null,"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":null,"server":null,"cancel_requested":false,"skipped_for":null,"artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',NULL,0,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A3185C500070008000000000000004',2,NULL,X'5275297D81785C0408F89CC371A05DD3B45D50A035BEABED9FAA608B0E622247',4,NULL,500,0,-9223372036854775808,1800000000000000,1800000108000000,X'AF0392862E164D6B821EC8ED5D3D0478',0,1,0,'server-a7c154acaced4eca82b4e1da6732f70d','tcp://one:1',0,NULL,0,0,'{"id":"01a3185c-5000-7000-8000-000000000004","project":"default","build":null,"facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"failed","version":3,"blocked_by":0,"attempt":1,"counted_attempts":1,"created_at":"2027-01-15T08:00:00Z","ready_at":"2027-01-15T08:00:00Z","started_at":"2027-01-15T08:00:08Z","finished_at":"2027-01-15T08:00:10Z","error":{"class":"build","message":"make failed","step":null},"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"server":"server-a7c154acaced4eca82b4e1da6732f70d","cancel_requested":false,"skipped_for":null,"artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',1800000010000000,0,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A3185C500070008000000000000005',2,NULL,X'2D53A9ECF9C3C1D761755A07C05DC2D34959BCEFC0B47204C46F844009368A2D',6,NULL,500,0,-9223372036854775808,9223372036854775807,-377705023201000000,NULL,0,0,0,NULL,NULL,0,NULL,0,0,'{"id":"01a3185c-5000-7000-8000-000000000005","project":"default","build":null,"facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"skipped","version":2,"blocked_by":1,"attempt":0,"counted_attempts":0,"created_at":"2027-01-15T08:00:00Z","ready_at":null,"started_at":null,"finished_at":"2027-01-15T08:00:10Z","error":{"class":"dependency","message":"config.yaml failed, and this job waits for it","step":null},"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":null,"server":null,"cancel_requested":false,"skipped_for":"01a3185c-5000-7000-8000-000000000004","artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',1800000010000000,0,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A3185C500070008000000000000006',3,NULL,X'EE3AFF8E08292731ABDD15F43B36FF0450A1F8813CD7E85066E7A8C811A72BC6',5,NULL,500,0,-9223372036854775808,1800000000000000,-377705023201000000,NULL,0,0,0,NULL,NULL,1,NULL,0,0,'{"id":"01a3185c-5000-7000-8000-000000000006","project":"default","build":null,"facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"cancelled","version":2,"blocked_by":0,"attempt":0,"counted_attempts":0,"created_at":"2027-01-15T08:00:00Z","ready_at":"2027-01-15T08:00:00Z","started_at":null,"finished_at":"2027-01-15T08:00:03Z","error":null,"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":null,"server":null,"cancel_requested":true,"skipped_for":null,"artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',1800000003000000,0,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A3185C500070008000000000000007',4,NULL,X'559CBF22E8BD09AC082BEEB4F2C0346285F2EA79CEA3BCF10B020546E718ADE0',1,2,1000,7,-9223372036854775808,1800000000000000,-377705023201000000,NULL,0,0,0,NULL,NULL,0,NULL,0,0,'{"id":"01a3185c-5000-7000-8000-000000000007","project":"other","build":null,"facts":{"package":null,"config_name":"config.yaml","arch":"aarch64","backend_selector":{},"with_test":false,"debug":false},"priority":1000,"rank":7,"state":"pending","version":1,"blocked_by":0,"attempt":0,"counted_attempts":0,"created_at":"2027-01-15T08:00:00Z","ready_at":"2027-01-15T08:00:00Z","started_at":null,"finished_at":null,"error":null,"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":null,"server":null,"cancel_requested":false,"skipped_for":null,"artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','other','config.yaml','aarch64',NULL,0,0,NULL,NULL);
CREATE TABLE logs (
    job BLOB NOT NULL,
    start INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (job, start)
);
INSERT INTO "logs" VALUES(X'01A3185C500070008000000000000001',0,X'666972737420617474656D70740A');
INSERT INTO "logs" VALUES(X'01A3185C500070008000000000000001',14,X'7365636F6E6420617474656D70740A');
INSERT INTO "logs" VALUES(X'01A3185C500070008000000000000002',0,X'72756E6E696E670A');
CREATE TABLE progress (
    job BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    number INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (job, attempt, number)
) WITHOUT ROWID;
INSERT INTO "progress" VALUES(X'01A3185C500070008000000000000001',1,0,'{"at":"2027-01-15T08:00:01Z","progress":{"event":"step_started","index":0,"name":"one"}}');
INSERT INTO "progress" VALUES(X'01A3185C500070008000000000000001',1,1,'{"at":"2027-01-15T08:00:01Z","progress":{"event":"step_started","index":0,"name":"two"}}');
CREATE TABLE specs (
    digest BLOB PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "specs" VALUES(X'2D53A9ECF9C3C1D761755A07C05DC2D34959BCEFC0B47204C46F844009368A2D','{"config_yaml":"package: {name: n5}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO "specs" VALUES(X'5275297D81785C0408F89CC371A05DD3B45D50A035BEABED9FAA608B0E622247','{"config_yaml":"package: {name: n4}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO "specs" VALUES(X'559CBF22E8BD09AC082BEEB4F2C0346285F2EA79CEA3BCF10B020546E718ADE0','{"config_yaml":"package: {name: n7}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"aarch64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO "specs" VALUES(X'5AF7F2F9DDF95764DBFBD0E0792B3B6D405A1AAA1F6E3C66CBB3F2F7AC069F75','{"config_yaml":"package: {name: n3}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO "specs" VALUES(X'E3FBFFBA5D404980334F26FF1E059A78ACED526D6A160834D2BD54C50015788B','{"config_yaml":"package: {name: n2}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO "specs" VALUES(X'E56B57F69BAEAFF8EB53DEC4851B3D616E1A4425A4EF2A2BF5A39924F741882A','{"config_yaml":"package: {name: n1}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO "specs" VALUES(X'EE3AFF8E08292731ABDD15F43B36FF0450A1F8813CD7E85066E7A8C811A72BC6','{"config_yaml":"package: {name: n6}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
CREATE TABLE submissions (
    id INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    key TEXT,
    content BLOB NOT NULL,
    build BLOB,
    jobs BLOB NOT NULL
);
INSERT INTO "submissions" VALUES(1,'default',NULL,X'E5E6C4385FB69683C44C328286372F3DD3F46B38534B3E0EEDF8EFF75673C39B',X'01A3185C500070008000000000000099',X'01A3185C50007000800000000000000101A3185C50007000800000000000000201A3185C500070008000000000000003');
INSERT INTO "submissions" VALUES(2,'default',NULL,X'470E6DF262EEA67DB4B6886326D3F092C807B269B77E82A7ABD0852BD47E9F63',NULL,X'01A3185C50007000800000000000000401A3185C500070008000000000000005');
INSERT INTO "submissions" VALUES(3,'default',NULL,X'FB3018A0DE75DF73553B5A8F18C1C5EB0BB13F6ABC10DD0767B1736F49357AE4',NULL,X'01A3185C500070008000000000000006');
INSERT INTO "submissions" VALUES(4,'other','key',X'2D2CDDB5D4F51155654119BA6F73F9FCDBB48A30D76CB40E2356BE8E6B610CB4',NULL,X'01A3185C500070008000000000000007');
CREATE TABLE tokens (
    token BLOB PRIMARY KEY,
    until INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "tokens" VALUES(X'BB228657D32B49CE882D458F085B5A56',1800000101000000);
INSERT INTO "tokens" VALUES(X'99C7A26FD3DA4285A5F6595CC1E0A23E',1800000106000000);
INSERT INTO "tokens" VALUES(X'1EF294DD6B3E43C2BD61947018F3896A',1800000108000000);
INSERT INTO "tokens" VALUES(X'AF0392862E164D6B821EC8ED5D3D0478',1800000108000000);
CREATE TABLE waits (
    needs BLOB NOT NULL,
    job BLOB NOT NULL,
    PRIMARY KEY (needs, job)
) WITHOUT ROWID;
INSERT INTO "waits" VALUES(X'01A3185C500070008000000000000001',X'01A3185C500070008000000000000002');
INSERT INTO "waits" VALUES(X'01A3185C500070008000000000000002',X'01A3185C500070008000000000000003');
INSERT INTO "waits" VALUES(X'01A3185C500070008000000000000004',X'01A3185C500070008000000000000005');
CREATE UNIQUE INDEX submissions_key ON submissions (project, key) WHERE key IS NOT NULL;
CREATE INDEX jobs_state ON jobs (state, id);
CREATE INDEX jobs_build ON jobs (build, id) WHERE build IS NOT NULL;
CREATE INDEX jobs_submission ON jobs (submission);
CREATE INDEX jobs_spec ON jobs (spec);
CREATE INDEX jobs_queue ON jobs (queue, priority DESC, rank DESC, id, not_before) WHERE queue IS NOT NULL;
CREATE INDEX jobs_lease ON jobs (lease_until) WHERE state = 2;
CREATE INDEX jobs_token ON jobs (token) WHERE state = 2;
CREATE INDEX jobs_backend ON jobs (backend) WHERE state = 2;
CREATE INDEX waits_job ON waits (job);
CREATE INDEX tokens_until ON tokens (until);
CREATE INDEX jobs_project ON jobs (project) WHERE state = 2;
CREATE INDEX jobs_server ON jobs (server) WHERE state = 2 AND cancel_requested;
CREATE INDEX submissions_content ON submissions (content, id);
CREATE INDEX events_job ON events (job, seq) WHERE job IS NOT NULL;
CREATE INDEX events_build ON events (build, seq) WHERE build IS NOT NULL;
CREATE INDEX jobs_ended ON jobs (ended_at, id) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_artifacts ON jobs (ended_at, id, artifact_bytes) WHERE artifact_bytes > 0;
CREATE INDEX jobs_logs ON jobs (ended_at, id, archived_bytes) WHERE archived_bytes > 0;
CREATE INDEX jobs_newest ON jobs (project, package, arch, ended_at, id) WHERE state = 3;
CREATE INDEX builds_project ON builds (project, id);
CREATE INDEX builds_state ON builds (state, id);
CREATE INDEX jobs_result ON jobs (result, ended_at, id) WHERE state = 3 AND result IS NOT NULL;
CREATE INDEX jobs_took ON jobs (project, arch, package, ended_at, id, took) WHERE state = 3 AND took IS NOT NULL;
CREATE INDEX jobs_package ON jobs (package, id);
COMMIT;
