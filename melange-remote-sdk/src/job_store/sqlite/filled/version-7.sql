PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO _sqlx_migrations VALUES(1,'jobs','2026-11-27 13:49:09',1,X'97ee2f0ce2f29479487eaa4bf1cd4cadb948f03f4facb30205bc6e0388545cf3707fad8bc717bf34dd084fdeeaab11c6',2494306);
INSERT INTO _sqlx_migrations VALUES(2,'small rows for what changes often','2026-11-27 13:49:09',1,X'76f9d616f6ccaba0348f8786eb59cbf905c9b2ea3bf228d28be4a1c8295be478a43833562ef99df1913b918209c1db9f',1906271);
INSERT INTO _sqlx_migrations VALUES(3,'logs in blocks, events','2026-11-27 13:49:09',1,X'63077f46a45acd28c8b1cb514ec2ca5c9967735f241f7c7a78fe05936a35d75e9250eee92deb576d557cf78ef9cfc748',2785559);
INSERT INTO _sqlx_migrations VALUES(4,'ended jobs by time','2026-11-27 13:49:09',1,X'54a42ddcd1bb9ea8607711620b051a02a1589f824ec5c97840714cce46cee88e498857903d502b27ebac220c3dc54375',3195496);
INSERT INTO _sqlx_migrations VALUES(5,'the fleet','2026-11-27 13:49:09',1,X'4b247d3d11ada2450e7b87d4402760d60252b1909780e55046dfa3ac1d2a7bea66997e24f7406c2c6f4276c5bb3b9ef6',1578750);
INSERT INTO _sqlx_migrations VALUES(6,'builds to list, results, durations','2026-11-27 13:49:09',1,X'447459c00fab8406f498a1a548d92e5334a7712e569d924661376e22a8faf654f38c99f87aefc7a29ea30bd1f4a54796',2991559);
INSERT INTO _sqlx_migrations VALUES(7,'what jobs ask of backends','2026-11-27 13:49:09',1,X'1a657a8e3202f04397bec39fc51d7ca9f608fde3cde76d7e4e4c4a7b5a0e419d9d3b2dd816709a467c2990328e33af88',1918676);
CREATE TABLE specs (
    digest BLOB PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO specs VALUES(X'2d53a9ecf9c3c1d761755a07c05dc2d34959bcefc0b47204c46f844009368a2d','{"config_yaml":"package: {name: n5}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO specs VALUES(X'5275297d81785c0408f89cc371a05dd3b45d50a035beabed9faa608b0e622247','{"config_yaml":"package: {name: n4}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO specs VALUES(X'559cbf22e8bd09ac082beeb4f2c0346285f2ea79cea3bcf10b020546e718ade0','{"config_yaml":"package: {name: n7}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"aarch64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO specs VALUES(X'5af7f2f9ddf95764dbfbd0e0792b3b6d405a1aaa1f6e3c66cbb3f2f7ac069f75','{"config_yaml":"package: {name: n3}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO specs VALUES(X'e3fbffba5d404980334f26ff1e059a78aced526d6a160834d2bd54c50015788b','{"config_yaml":"package: {name: n2}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO specs VALUES(X'e56b57f69baeaff8eb53dec4851b3d616e1a4425a4ef2a2bf5a39924f741882a','{"config_yaml":"package: {name: n1}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
INSERT INTO specs VALUES(X'ee3aff8e08292731abdd15f43b36ff0450a1f8813cd7e85066e7a8c811a72bc6','{"config_yaml":"package: {name: n6}\n","config_name":"config.yaml","test_packages":[],"package":null,"pipelines":{},"arch":"x86_64","backend_selector":{},"with_test":false,"debug":false}');
CREATE TABLE submissions (
    id INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    key TEXT,
    content BLOB NOT NULL,
    build BLOB,
    jobs BLOB NOT NULL
);
INSERT INTO submissions VALUES(1,'default',NULL,X'e5e6c4385fb69683c44c328286372f3dd3f46b38534b3e0eedf8eff75673c39b',X'01a3185c500070008000000000000099',X'01a3185c50007000800000000000000101a3185c50007000800000000000000201a3185c500070008000000000000003');
INSERT INTO submissions VALUES(2,'default',NULL,X'470e6df262eea67db4b6886326d3f092c807b269b77e82a7abd0852bd47e9f63',NULL,X'01a3185c50007000800000000000000401a3185c500070008000000000000005');
INSERT INTO submissions VALUES(3,'default',NULL,X'fb3018a0de75df73553b5a8f18c1c5eb0bb13f6abc10dd0767b1736f49357ae4',NULL,X'01a3185c500070008000000000000006');
INSERT INTO submissions VALUES(4,'other','key',X'2d2cddb5d4f51155654119ba6f73f9fcdbb48a30d76cb40e2356be8e6b610cb4',NULL,X'01a3185c500070008000000000000007');
CREATE TABLE builds (
    id BLOB PRIMARY KEY,
    doc TEXT NOT NULL
, project TEXT NOT NULL DEFAULT 'default', state INTEGER NOT NULL DEFAULT 0, facts TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
INSERT INTO builds VALUES(X'01a3185c500070008000000000000099','{"id":"build-01a3185c-5000-7000-8000-000000000099","project":"default","created_at":"2027-01-15T08:00:00Z","finished_at":null,"counts":[1,0,1,1,0,0,0],"reused":0,"facts":{"source":{"kind":"unknown"},"title":"","architectures":[],"is_planned":false,"skipped":0,"cuts":0,"levels":0,"critical_path_ms":0,"fail_fast":false,"trigger":""}}','default',1,'{"source":{"kind":"unknown"},"title":"","architectures":[],"is_planned":false,"skipped":0,"cuts":0,"levels":0,"critical_path_ms":0,"fail_fast":false,"trigger":""}');
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
, project TEXT NOT NULL DEFAULT 'default', package TEXT NOT NULL DEFAULT '', arch TEXT NOT NULL DEFAULT '', ended_at INTEGER, artifact_bytes INTEGER NOT NULL DEFAULT 0, archived_bytes INTEGER NOT NULL DEFAULT 0, result BLOB, took INTEGER, cpu_millis INTEGER NOT NULL DEFAULT 0, memory_bytes INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
INSERT INTO jobs VALUES(X'01a3185c500070008000000000000001',1,X'01a3185c500070008000000000000099',X'e56b57f69baeaff8eb53dec4851b3d616e1a4425a4ef2a2bf5a39924f741882a',3,NULL,500,0,-9223372036854775808,1800000002000000,1800000106000000,X'45b777a0d8e04c27bf4aed2876f2e10b',0,2,0,'server-a7d194388b73440398ff404b5a975918','tcp://one:1',0,NULL,0,29,'{"id":"01a3185c-5000-7000-8000-000000000001","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"success","version":5,"blocked_by":0,"attempt":2,"counted_attempts":2,"created_at":"2027-01-15T08:00:00Z","ready_at":"2027-01-15T08:00:02Z","started_at":"2027-01-15T08:00:06Z","finished_at":"2027-01-15T08:00:07Z","error":null,"note":null,"waiting":null,"not_before":null,"avoid":["tcp://one:1"],"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"server":"server-a7d194388b73440398ff404b5a975918","cancel_requested":false,"skipped_for":null,"artifacts":[{"name":"x86_64/a.apk","size_bytes":1,"sha256":"0000000000000000000000000000000000000000000000000000000000000000"}],"trouble_since":null,"failing_since":"2027-01-15T08:00:02Z","artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',1800000007000000,1,0,NULL,1000,0,0);
INSERT INTO jobs VALUES(X'01a3185c500070008000000000000002',1,X'01a3185c500070008000000000000099',X'e3fbffba5d404980334f26ff1e059a78aced526d6a160834d2bd54c50015788b',2,NULL,500,0,-9223372036854775808,1800000007000000,1800000108000000,X'aeb438e9fd934c4a9946ccc337c3988f',0,1,0,'server-48a1591718da42a387a5d479b4331be3','tcp://one:1',1,NULL,0,8,'{"id":"01a3185c-5000-7000-8000-000000000002","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"running","version":4,"blocked_by":0,"attempt":1,"counted_attempts":1,"created_at":"2027-01-15T08:00:00Z","ready_at":"2027-01-15T08:00:07Z","started_at":"2027-01-15T08:00:08Z","finished_at":null,"error":null,"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"server":"server-48a1591718da42a387a5d479b4331be3","cancel_requested":true,"skipped_for":null,"artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',NULL,0,0,NULL,NULL,0,0);
INSERT INTO jobs VALUES(X'01a3185c500070008000000000000003',1,X'01a3185c500070008000000000000099',X'5af7f2f9ddf95764dbfbd0e0792b3b6d405a1aaa1f6e3c66cbb3f2f7ac069f75',0,NULL,500,0,-9223372036854775808,9223372036854775807,-377705023201000000,NULL,0,0,0,NULL,NULL,0,NULL,0,0,'{"id":"01a3185c-5000-7000-8000-000000000003","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"blocked","version":1,"blocked_by":1,"attempt":0,"counted_attempts":0,"created_at":"2027-01-15T08:00:00Z","ready_at":null,"started_at":null,"finished_at":null,"error":null,"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":null,"server":null,"cancel_requested":false,"skipped_for":null,"artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',NULL,0,0,NULL,NULL,0,0);
INSERT INTO jobs VALUES(X'01a3185c500070008000000000000004',2,NULL,X'5275297d81785c0408f89cc371a05dd3b45d50a035beabed9faa608b0e622247',4,NULL,500,0,-9223372036854775808,1800000000000000,1800000108000000,X'7aa05970ca2c4097bbc9972aba27c5b1',0,1,0,'server-74bffea1e51144959c2fb0db7ef8b46d','tcp://one:1',0,NULL,0,0,'{"id":"01a3185c-5000-7000-8000-000000000004","project":"default","build":null,"facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"failed","version":3,"blocked_by":0,"attempt":1,"counted_attempts":1,"created_at":"2027-01-15T08:00:00Z","ready_at":"2027-01-15T08:00:00Z","started_at":"2027-01-15T08:00:08Z","finished_at":"2027-01-15T08:00:10Z","error":{"class":"build","message":"make failed","step":null},"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"server":"server-74bffea1e51144959c2fb0db7ef8b46d","cancel_requested":false,"skipped_for":null,"artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',1800000010000000,0,0,NULL,NULL,0,0);
INSERT INTO jobs VALUES(X'01a3185c500070008000000000000005',2,NULL,X'2d53a9ecf9c3c1d761755a07c05dc2d34959bcefc0b47204c46f844009368a2d',6,NULL,500,0,-9223372036854775808,9223372036854775807,-377705023201000000,NULL,0,0,0,NULL,NULL,0,NULL,0,0,'{"id":"01a3185c-5000-7000-8000-000000000005","project":"default","build":null,"facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"skipped","version":2,"blocked_by":1,"attempt":0,"counted_attempts":0,"created_at":"2027-01-15T08:00:00Z","ready_at":null,"started_at":null,"finished_at":"2027-01-15T08:00:10Z","error":{"class":"dependency","message":"config.yaml failed, and this job waits for it","step":null},"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":null,"server":null,"cancel_requested":false,"skipped_for":"01a3185c-5000-7000-8000-000000000004","artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',1800000010000000,0,0,NULL,NULL,0,0);
INSERT INTO jobs VALUES(X'01a3185c500070008000000000000006',3,NULL,X'ee3aff8e08292731abdd15f43b36ff0450a1f8813cd7e85066e7a8c811a72bc6',5,NULL,500,0,-9223372036854775808,1800000000000000,-377705023201000000,NULL,0,0,0,NULL,NULL,1,NULL,0,0,'{"id":"01a3185c-5000-7000-8000-000000000006","project":"default","build":null,"facts":{"package":null,"config_name":"config.yaml","arch":"x86_64","backend_selector":{},"with_test":false,"debug":false},"priority":500,"rank":0,"state":"cancelled","version":2,"blocked_by":0,"attempt":0,"counted_attempts":0,"created_at":"2027-01-15T08:00:00Z","ready_at":"2027-01-15T08:00:00Z","started_at":null,"finished_at":"2027-01-15T08:00:03Z","error":null,"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":null,"server":null,"cancel_requested":true,"skipped_for":null,"artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','default','config.yaml','x86_64',1800000003000000,0,0,NULL,NULL,0,0);
INSERT INTO jobs VALUES(X'01a3185c500070008000000000000007',4,NULL,X'559cbf22e8bd09ac082beeb4f2c0346285f2ea79cea3bcf10b020546e718ade0',1,2,1000,7,-9223372036854775808,1800000000000000,-377705023201000000,NULL,0,0,0,NULL,NULL,0,NULL,0,0,'{"id":"01a3185c-5000-7000-8000-000000000007","project":"other","build":null,"facts":{"package":null,"config_name":"config.yaml","arch":"aarch64","backend_selector":{},"with_test":false,"debug":false},"priority":1000,"rank":7,"state":"pending","version":1,"blocked_by":0,"attempt":0,"counted_attempts":0,"created_at":"2027-01-15T08:00:00Z","ready_at":"2027-01-15T08:00:00Z","started_at":null,"finished_at":null,"error":null,"note":null,"waiting":null,"not_before":null,"avoid":[],"backend":null,"server":null,"cancel_requested":false,"skipped_for":null,"artifacts":[],"trouble_since":null,"failing_since":null,"artifacts_removed_at":null,"log_removed_at":null}','other','config.yaml','aarch64',NULL,0,0,NULL,NULL,0,0);
CREATE TABLE waits (
    needs BLOB NOT NULL,
    job BLOB NOT NULL,
    PRIMARY KEY (needs, job)
) WITHOUT ROWID;
INSERT INTO waits VALUES(X'01a3185c500070008000000000000001',X'01a3185c500070008000000000000002');
INSERT INTO waits VALUES(X'01a3185c500070008000000000000002',X'01a3185c500070008000000000000003');
INSERT INTO waits VALUES(X'01a3185c500070008000000000000004',X'01a3185c500070008000000000000005');
CREATE TABLE attempts (
    job BLOB NOT NULL,
    number INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
INSERT INTO attempts VALUES(X'01a3185c500070008000000000000001',1,'{"number":1,"server":"server-3afe847c768a4d039845990f7cea9673","started_at":"2027-01-15T08:00:01Z","ended_at":"2027-01-15T08:00:02Z","outcome":"given_back","counts":true,"error":{"class":"infrastructure","message":"the daemon is gone","step":null},"failure":{"version":1,"signature":"a9d644b2a046ca57","kind":"other","normalised":"the daemon is gone","line":null,"text":"the daemon is gone","extract":[]},"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"steps":[],"phases":[],"tests":[],"log_begin":0,"log_end":14,"log":null,"log_removed_at":null}');
INSERT INTO attempts VALUES(X'01a3185c500070008000000000000001',2,'{"number":2,"server":"server-a7d194388b73440398ff404b5a975918","started_at":"2027-01-15T08:00:06Z","ended_at":"2027-01-15T08:00:07Z","outcome":"success","counts":true,"error":null,"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"steps":[],"phases":[],"tests":[],"log_begin":14,"log_end":29,"log":null,"log_removed_at":null}');
INSERT INTO attempts VALUES(X'01a3185c500070008000000000000002',1,'{"number":1,"server":"server-48a1591718da42a387a5d479b4331be3","started_at":"2027-01-15T08:00:08Z","ended_at":null,"outcome":"running","counts":true,"error":null,"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"steps":[],"phases":[],"tests":[],"log_begin":0,"log_end":null,"log":null,"log_removed_at":null}');
INSERT INTO attempts VALUES(X'01a3185c500070008000000000000004',1,'{"number":1,"server":"server-74bffea1e51144959c2fb0db7ef8b46d","started_at":"2027-01-15T08:00:08Z","ended_at":"2027-01-15T08:00:10Z","outcome":"failed","counts":true,"error":{"class":"build","message":"make failed","step":null},"failure":{"version":1,"signature":"87a0c0883b3feeb2","kind":"compile","normalised":"a.c:<n>: error: \"ü\" is no type","line":8,"text":"a.c:1:2: error: \"ü\" is no type","extract":[{"number":7,"text":"cc -c a.c"},{"number":8,"text":"a.c:1:2: error: \"ü\" is no type"},{"number":9,"text":"make: *** [a.o] Error 1"}]},"backend":{"addr":"tcp://one:1","arch":"x86_64","labels":{}},"steps":[],"phases":[],"tests":[],"log_begin":0,"log_end":0,"log":null,"log_removed_at":null}');
CREATE TABLE progress (
    job BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    number INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (job, attempt, number)
) WITHOUT ROWID;
INSERT INTO progress VALUES(X'01a3185c500070008000000000000001',1,0,'{"at":"2027-01-15T08:00:01Z","progress":{"event":"step_started","index":0,"name":"one"}}');
INSERT INTO progress VALUES(X'01a3185c500070008000000000000001',1,1,'{"at":"2027-01-15T08:00:01Z","progress":{"event":"step_started","index":0,"name":"two"}}');
CREATE TABLE logs (
    job BLOB NOT NULL,
    start INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (job, start)
);
INSERT INTO logs VALUES(X'01a3185c500070008000000000000001',0,X'666972737420617474656d70740a');
INSERT INTO logs VALUES(X'01a3185c500070008000000000000001',14,X'7365636f6e6420617474656d70740a');
INSERT INTO logs VALUES(X'01a3185c500070008000000000000002',0,X'72756e6e696e670a');
CREATE TABLE tokens (
    token BLOB PRIMARY KEY,
    until INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO tokens VALUES(X'e350623580e54f43bfd59029f35a20db',1800000101000000);
INSERT INTO tokens VALUES(X'45b777a0d8e04c27bf4aed2876f2e10b',1800000106000000);
INSERT INTO tokens VALUES(X'7aa05970ca2c4097bbc9972aba27c5b1',1800000108000000);
INSERT INTO tokens VALUES(X'aeb438e9fd934c4a9946ccc337c3988f',1800000108000000);
CREATE TABLE counters (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    waiting INTEGER NOT NULL
, events INTEGER NOT NULL DEFAULT 0);
INSERT INTO counters VALUES(1,2,27);
CREATE TABLE blocked (
    job BLOB PRIMARY KEY,
    needs INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO blocked VALUES(X'01a3185c500070008000000000000003',1);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    job BLOB,
    build BLOB,
    doc TEXT NOT NULL
);
INSERT INTO events VALUES(1,'default',X'01a3185c500070008000000000000001',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"pending","arch":"x86_64","attempt":0}}');
INSERT INTO events VALUES(2,'default',X'01a3185c500070008000000000000002',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000002","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"blocked","arch":"x86_64","attempt":0,"blocked_by":1}}');
INSERT INTO events VALUES(3,'default',X'01a3185c500070008000000000000003',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000003","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"blocked","arch":"x86_64","attempt":0,"blocked_by":1}}');
INSERT INTO events VALUES(4,'default',NULL,X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","type":"build.state","data":{"state":"pending"}}');
INSERT INTO events VALUES(5,'default',X'01a3185c500070008000000000000004',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000004","type":"job.state","data":{"state":"pending","arch":"x86_64","attempt":0}}');
INSERT INTO events VALUES(6,'default',X'01a3185c500070008000000000000005',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000005","type":"job.state","data":{"state":"blocked","arch":"x86_64","attempt":0,"blocked_by":1}}');
INSERT INTO events VALUES(7,'default',X'01a3185c500070008000000000000006',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"default","job":"01a3185c-5000-7000-8000-000000000006","type":"job.state","data":{"state":"pending","arch":"x86_64","attempt":0}}');
INSERT INTO events VALUES(8,'other',X'01a3185c500070008000000000000007',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:00Z","project":"other","job":"01a3185c-5000-7000-8000-000000000007","type":"job.state","data":{"state":"pending","arch":"aarch64","attempt":0}}');
INSERT INTO events VALUES(9,'default',X'01a3185c500070008000000000000001',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:01Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"running","arch":"x86_64","attempt":1,"backend":"tcp://one:1"}}');
INSERT INTO events VALUES(10,'default',NULL,X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:01Z","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","type":"build.state","data":{"state":"running"}}');
INSERT INTO events VALUES(11,'default',X'01a3185c500070008000000000000001',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:01Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.step","data":{"attempt":1,"index":0,"name":"one","state":"running"}}');
INSERT INTO events VALUES(12,'default',X'01a3185c500070008000000000000001',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:01Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.step","data":{"attempt":1,"index":0,"name":"two","state":"running"}}');
INSERT INTO events VALUES(13,'default',X'01a3185c500070008000000000000001',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:02Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.attempt","data":{"number":1,"outcome":"given_back","counts":true,"backend":"tcp://one:1","error":"the daemon is gone","error_class":"infrastructure"}}');
INSERT INTO events VALUES(14,'default',X'01a3185c500070008000000000000001',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:02Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"pending","arch":"x86_64","attempt":1,"backend":"tcp://one:1","error":"the daemon is gone","error_class":"infrastructure","not_before":"2027-01-15T08:00:05Z"}}');
INSERT INTO events VALUES(15,'default',NULL,X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:02Z","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","type":"build.state","data":{"state":"pending"}}');
INSERT INTO events VALUES(16,'default',X'01a3185c500070008000000000000001',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:06Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"running","arch":"x86_64","attempt":2,"backend":"tcp://one:1","error":"the daemon is gone","error_class":"infrastructure"}}');
INSERT INTO events VALUES(17,'default',NULL,X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:06Z","project":"default","build":"build-01a3185c-5000-7000-8000-000000000099","type":"build.state","data":{"state":"running"}}');
INSERT INTO events VALUES(18,'default',X'01a3185c500070008000000000000001',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:07Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.attempt","data":{"number":2,"outcome":"success","counts":true,"backend":"tcp://one:1"}}');
INSERT INTO events VALUES(19,'default',X'01a3185c500070008000000000000001',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:07Z","project":"default","job":"01a3185c-5000-7000-8000-000000000001","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"success","arch":"x86_64","attempt":2,"backend":"tcp://one:1"}}');
INSERT INTO events VALUES(20,'default',X'01a3185c500070008000000000000002',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:07Z","project":"default","job":"01a3185c-5000-7000-8000-000000000002","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"pending","arch":"x86_64","attempt":0}}');
INSERT INTO events VALUES(21,'default',X'01a3185c500070008000000000000006',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:03Z","project":"default","job":"01a3185c-5000-7000-8000-000000000006","type":"job.state","data":{"state":"cancelled","arch":"x86_64","attempt":0}}');
INSERT INTO events VALUES(22,'default',X'01a3185c500070008000000000000002',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:08Z","project":"default","job":"01a3185c-5000-7000-8000-000000000002","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.state","data":{"state":"running","arch":"x86_64","attempt":1,"backend":"tcp://one:1"}}');
INSERT INTO events VALUES(23,'default',X'01a3185c500070008000000000000002',X'01a3185c500070008000000000000099','{"version":1,"seq":0,"time":"2027-01-15T08:00:09Z","project":"default","job":"01a3185c-5000-7000-8000-000000000002","build":"build-01a3185c-5000-7000-8000-000000000099","type":"job.cancel_requested","data":{}}');
INSERT INTO events VALUES(24,'default',X'01a3185c500070008000000000000004',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:08Z","project":"default","job":"01a3185c-5000-7000-8000-000000000004","type":"job.state","data":{"state":"running","arch":"x86_64","attempt":1,"backend":"tcp://one:1"}}');
INSERT INTO events VALUES(25,'default',X'01a3185c500070008000000000000004',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:10Z","project":"default","job":"01a3185c-5000-7000-8000-000000000004","type":"job.attempt","data":{"number":1,"outcome":"failed","counts":true,"backend":"tcp://one:1","error":"make failed","error_class":"build"}}');
INSERT INTO events VALUES(26,'default',X'01a3185c500070008000000000000004',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:10Z","project":"default","job":"01a3185c-5000-7000-8000-000000000004","type":"job.state","data":{"state":"failed","arch":"x86_64","attempt":1,"backend":"tcp://one:1","error":"make failed","error_class":"build"}}');
INSERT INTO events VALUES(27,'default',X'01a3185c500070008000000000000005',NULL,'{"version":1,"seq":0,"time":"2027-01-15T08:00:10Z","project":"default","job":"01a3185c-5000-7000-8000-000000000005","type":"job.state","data":{"state":"skipped","arch":"x86_64","attempt":0,"error":"config.yaml failed, and this job waits for it","error_class":"dependency","skipped_for":"01a3185c-5000-7000-8000-000000000004"}}');
CREATE TABLE backends (
    key TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;
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
