//! Tests of logs: blocks, archives, readers.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;

use super::block::{Parsed, read_block};
use super::*;
use crate::artifact_storage::layout::{LOG_NAME, artifact_key};
use crate::artifact_storage::object::ObjectArtifactStorage;
use crate::builder::LogStream;
use crate::conformance::job_store as suite;
use crate::error::ErrorKind;
use crate::job::{JobId, LogPosition, Outcome};
use crate::job_store::memory::MemoryJobStore;
use crate::job_store::{
    ExpireRequest, Fence, JobIntake, JobProgress, JobQueue, JobReading, Patience, Selection,
};
use crate::limits;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

/// Lines as `(milliseconds, step, stream, text)`.
type Written<'t> = (i64, Option<u32>, LogStream, &'t str);

fn lines(all: &[Written<'_>]) -> Lines {
    let mut lines = Lines::default();
    all.iter().for_each(|(ms, step, stream, text)| lines.push(Origin::new(at(*ms), *step, *stream), text));
    lines
}

fn stdout(text: &str) -> Lines {
    lines(&[(1_000, Some(0), LogStream::Stdout, text)])
}

fn line() -> impl Strategy<Value = (i64, Option<u32>, LogStream, String)> {
    let stream = prop_oneof![Just(LogStream::Stdout), Just(LogStream::Stderr), Just(LogStream::Engine)];
    (0..5i64, proptest::option::of(0..3u32), stream, "\\PC{0,20}")
}

proptest! {
    #[test]
    fn a_block_and_back_is_the_same(
        all in proptest::collection::vec(line(), 1..60), attempt in 1..9u32, first in 1..1_000_000u64, offset in any::<u32>(),
    ) {
        let written: Vec<Written<'_>> = all.iter().map(|(ms, step, stream, text)| (*ms, *step, *stream, text.as_str())).collect();
        let block = lines(&written).into_block(attempt, first, u64::from(offset));
        let told: Vec<Written<'_>> = block.lines().map(|line| {
            let text = std::str::from_utf8(line.text).unwrap();
            (line.origin.at.as_millisecond(), line.origin.step, line.origin.stream, text)
        }).collect();
        prop_assert_eq!(&told, &written);
        prop_assert!(block.lines().map(|line| line.number).eq(first..block.next()));
        let bytes = block.encode().unwrap();
        prop_assert_eq!(read_block(&bytes).unwrap(), Parsed::Whole(block.clone(), bytes.len()));
        // What follows does not matter, and what is missing is noticed.
        let more = [&bytes[..], b"rest"].concat();
        prop_assert_eq!(read_block(&more).unwrap(), Parsed::Whole(block, bytes.len()));
        for size in [0, 3, 8, 20, bytes.len() - 1] {
            let part = read_block(&bytes[..size.min(bytes.len() - 1)]).unwrap();
            prop_assert!(matches!(part, Parsed::Part(least) if least > size.min(bytes.len() - 1)), "{:?}", part);
        }
    }

    /// What is counted against the bound of what is kept is not less than the text and its forms take.
    #[test]
    fn a_block_weighs_what_its_forms_take(
        texts in proptest::collection::vec("(\\PC|[\u{0}-\u{9}\u{b}-\u{1f}\"\\\\]){0,200}", 1..40),
    ) {
        let all: Vec<Written> = texts.iter().map(|text| (1, Some(0), LogStream::Stdout, text.as_str())).collect();
        let block = lines(&all).into_block(1, 1, 0);
        let form: usize = texts.iter().map(|text| serde_json::to_string(text).unwrap().len()).sum();
        prop_assert!(block.weight() >= block.text().len() + form * 2);
    }

    /// Damaged logs are refused, and nothing else happens.
    #[test]
    fn damaged_blocks_are_refused(place in any::<prop::sample::Index>(), byte in any::<u8>(), rest in any::<Vec<u8>>()) {
        let whole = lines(&[(1, Some(0), LogStream::Stdout, "one"), (2, None, LogStream::Engine, "two")]);
        let mut bytes = whole.into_block(1, 1, 0).encode().unwrap();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(Parsed::Whole(block, size)) = read_block(&bytes) {
            prop_assert!(size <= bytes.len());
            prop_assert_eq!(u64::try_from(block.lines().count()).unwrap(), block.count());
        }
        _ = read_block(&rest);
        _ = index::LogIndex::decode(&rest);
        _ = index::LogIndex::size_of(&rest);
    }
}

#[test]
fn newlines_within_a_line_do_not_make_two() {
    let block = stdout("a\nb").into_block(1, 1, 0);
    assert_eq!((&block.text()[..], block.count()), (&b"a b\n"[..], 1));
}

#[test]
fn the_engines_lines_are_found_among_others() {
    let all = lines(&[
        (1, None, LogStream::Engine, "--- begins"),
        (1, Some(0), LogStream::Stdout, "one"),
        (1, Some(0), LogStream::Stdout, ""),
        (2, None, LogStream::Engine, "--- ends"),
    ]);
    assert_eq!(&all.of_engine().into_block(1, 1, 0).text()[..], b"--- begins\n--- ends\n");
}

/// A farm's logs, and what runs.
struct Farm {
    store: Arc<MemoryJobStore>,
    storage: Arc<ObjectArtifactStorage>,
    logs: JobLogs,
    job: JobId,
}

impl Farm {
    async fn new() -> Self {
        let store = Arc::new(MemoryJobStore::default());
        let storage = Arc::new(ObjectArtifactStorage::memory());
        let logs = JobLogs::new(Arc::clone(&store) as _, Arc::clone(&storage) as _);
        let job = suite::submit(&store, suite::new_job("package: {}\n")).await;
        Self { store, storage, logs, job }
    }

    /// The same farm's other server.
    fn elsewhere(&self) -> JobLogs {
        JobLogs::new(Arc::clone(&self.store) as _, Arc::clone(&self.storage) as _)
    }

    async fn claim(&self, seconds: u64) -> (Fence, LogWriter) {
        let request = suite::filled::request(crate::job::ClaimToken::new(), suite::filled::offer(1), seconds);
        let claim = self.store.claim(&request).await.unwrap().remove(0);
        (claim.fence, self.logs.write(claim.fence, claim.log_bytes))
    }

    async fn write(&self, fence: Fence, writer: &mut LogWriter, lines: Lines) {
        let block = writer.block(lines);
        let bytes = Bytes::from(block.encode().unwrap());
        let length = self.store.append_log(fence, writer.offset(), bytes).await.unwrap();
        writer.wrote(block, length);
    }

    async fn finish(&self, fence: Fence, writer: LogWriter) {
        drop(writer);
        self.store.finish(fence, &Outcome::Cancelled, suite::at(600)).await.unwrap();
    }

    async fn text(&self, logs: &JobLogs, query: LogQuery) -> String {
        String::from_utf8(all(&mut logs.read(self.job, query).await.unwrap()).await.concat()).unwrap()
    }
}

async fn all(reader: &mut LogReader) -> Vec<Bytes> {
    let mut found = Vec::new();
    while let Some(part) = reader.next().await.unwrap() {
        found.push(part.text());
    }
    found
}

/// Every way to ask gives the same from the newest blocks, from the store and from the archive.
#[tokio::test]
async fn logs_read_the_same_wherever_they_are() {
    let farm = Farm::new().await;
    let (first, mut writer) = farm.claim(1).await;
    farm.write(first, &mut writer, lines(&[(1_000, None, LogStream::Engine, "--- attempt 1")])).await;
    farm.write(first, &mut writer, stdout("lost")).await;
    drop(writer);
    let settled = farm.store.expire(&ExpireRequest::new(suite::at(500), Patience::ENDLESS)).await.unwrap();
    assert_eq!(settled.len(), 1);
    let (second, mut writer) = farm.claim(501).await;
    for number in 0..30u32 {
        let (out, err) = (format!("out {number}"), format!("err {number}"));
        let ms = 2_000 + i64::from(number);
        let step = Some(number / 10);
        farm.write(
            second,
            &mut writer,
            lines(&[(ms, step, LogStream::Stdout, &out), (ms, step, LogStream::Stderr, &err)]),
        )
        .await;
    }
    let ask = async |logs: &JobLogs| {
        let query = LogQuery::default;
        let of = LogQuery::of_attempt;
        [
            farm.text(logs, query()).await,
            farm.text(logs, of(1)).await,
            farm.text(logs, LogQuery { step: Some(1), stream: Some(LogStream::Stderr), ..query() }).await,
            farm.text(logs, query().behind(LogPosition { attempt: 2, line: 57 })).await,
            farm.text(logs, query().behind(LogPosition { attempt: 1, line: 1 })).await,
            farm.text(logs, LogQuery { tail: Some(3), ..query() }).await,
            farm.text(logs, LogQuery { tail: Some(3), step: Some(0), ..query() }).await,
            farm.text(logs, LogQuery { since: Some(at(2_029)), ..query() }).await,
            farm.text(
                logs,
                LogQuery { last: Some(3), behind: Some(LogPosition { attempt: 2, line: 1 }), ..of(2) },
            )
            .await,
            farm.text(logs, query().behind(LogPosition { attempt: 2, line: 60 })).await,
        ]
    };
    let live = ask(&farm.logs).await;
    assert_eq!(live[0].lines().count(), 62);
    assert!(live[0].starts_with("--- attempt 1\nlost\nout 0\nerr 0\n"));
    assert_eq!(live[1], "--- attempt 1\nlost\n");
    assert_eq!(live[2].lines().next(), Some("err 10"));
    assert_eq!(live[2].lines().count(), 10);
    assert_eq!(live[3], "err 28\nout 29\nerr 29\n");
    assert_eq!(live[4].lines().count(), 61);
    assert_eq!(live[5], live[3]);
    assert_eq!(live[6], "err 8\nout 9\nerr 9\n");
    assert_eq!(live[7], "out 29\nerr 29\n");
    assert_eq!(live[8], "err 0\nout 1\n");
    assert_eq!(live[9], "");
    assert_eq!(ask(&farm.elsewhere()).await, live);
    // A reader in the middle goes on where the store has forgotten what it reads.
    let mut reader = farm.elsewhere().read(farm.job, LogQuery::default()).await.unwrap();
    let begun = reader.next().await.unwrap().unwrap().text();
    farm.finish(second, writer).await;
    for attempt in [1, 2] {
        farm.logs.archive(farm.job, attempt).await.unwrap();
    }
    assert_eq!([&begun[..], &all(&mut reader).await.concat()].concat(), live[0].as_bytes());
    for logs in [&farm.logs, &farm.elsewhere()] {
        assert_eq!(ask(logs).await, live);
    }
    let archive = farm.store.attempt(farm.job, 2).await.unwrap().log.unwrap();
    assert_eq!((archive.lines, archive.steps.len()), (60, 3));
    assert_eq!(archive.steps[1], crate::job::StepLines::new(1, 21, 40));
    // Also when the store has forgotten the job.
    farm.store.remove(farm.job).await.unwrap();
    assert_eq!(farm.text(&farm.logs, LogQuery::of_attempt(1)).await, live[1]);
    assert_eq!(farm.text(&farm.logs, LogQuery::default()).await.lines().count(), 60);
}

#[tokio::test]
async fn an_archive_is_text_for_other_programs() {
    let farm = Farm::new().await;
    let (fence, mut writer) = farm.claim(1).await;
    let mut expected = String::new();
    for number in 0..2_500 {
        let text = format!("line {number}");
        expected.push_str(&text);
        expected.push('\n');
        farm.write(fence, &mut writer, stdout(&text)).await;
    }
    farm.finish(fence, writer).await;
    let archive = farm.logs.archive(farm.job, 1).await.unwrap();
    assert_eq!((archive.lines, archive.text_bytes), (2_500, u64::try_from(expected.len()).unwrap()));
    let key = artifact_key(farm.job, 1, LOG_NAME).unwrap();
    let bytes = crate::conformance::artifact_storage::read(&*farm.storage, &key).await;
    assert_eq!(archive.stored_bytes, u64::try_from(bytes.len()).unwrap());
    let mut text = String::new();
    zstd::stream::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, expected);
    assert_eq!(farm.text(&farm.logs, LogQuery::default()).await, expected);
}

#[tokio::test(start_paused = true)]
async fn followers_see_each_line_once_over_attempts_and_servers() {
    let farm = Farm::new().await;
    let follow = |logs: JobLogs| {
        let job = farm.job;
        tokio::spawn(async move {
            let mut reader = logs.read(job, LogQuery::default().following()).await.unwrap();
            String::from_utf8(all(&mut reader).await.concat()).unwrap()
        })
    };
    // Before anything runs, here and on another server.
    let followers = [follow(farm.logs.clone()), follow(farm.elsewhere())];
    tokio::task::yield_now().await;
    let (first, mut writer) = farm.claim(1).await;
    for number in 0..5 {
        farm.write(first, &mut writer, stdout(&format!("one {number}"))).await;
        tokio::task::yield_now().await;
    }
    drop(writer);
    farm.store.expire(&ExpireRequest::new(suite::at(500), Patience::ENDLESS)).await.unwrap();
    let (second, mut writer) = farm.claim(501).await;
    let late = follow(farm.elsewhere());
    for number in 0..5 {
        farm.write(second, &mut writer, stdout(&format!("two {number}"))).await;
        tokio::task::yield_now().await;
    }
    farm.logs.archive(farm.job, 1).await.unwrap();
    farm.write(second, &mut writer, stdout("end")).await;
    farm.finish(second, writer).await;
    let mut expected: Vec<String> = Vec::new();
    for attempt in ["one", "two"] {
        expected.extend((0..5).map(|number| format!("{attempt} {number}")));
    }
    expected.push("end".to_owned());
    for follower in followers.into_iter().chain([late]) {
        let seen = follower.await.unwrap();
        assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn followers_of_a_job_that_never_runs_end_with_it() {
    let farm = Farm::new().await;
    let mut reader = farm.logs.read(farm.job, LogQuery::default().following()).await.unwrap();
    let followed = tokio::spawn(async move { all(&mut reader).await });
    tokio::task::yield_now().await;
    farm.store.cancel(Selection::Job(farm.job), suite::at(1)).await.unwrap();
    assert!(followed.await.unwrap().is_empty());
    let missing = farm.logs.read(farm.job, LogQuery::of_attempt(1)).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

/// The blocks that are kept for followers are bounded, and those that left are read from the store.
#[tokio::test]
async fn slow_followers_read_what_is_kept_no_longer_from_the_store() {
    let farm = Farm::new().await;
    let (fence, mut writer) = farm.claim(1).await;
    let mut reader = farm.logs.read(farm.job, LogQuery::default()).await.unwrap();
    let text = "x".repeat(1 << 16);
    let count = limits::LOG_BLOCKS_KEPT_BYTES_MAX / text.len();
    for _ in 0..count {
        farm.write(fence, &mut writer, stdout(&text)).await;
    }
    let read: usize = all(&mut reader).await.iter().map(Bytes::len).sum();
    assert_eq!(read, count * (text.len() + 1));
}

/// Also of a range of its text, which needs the size of all before the first byte.
#[tokio::test]
async fn a_range_of_a_long_log_is_whole_while_the_attempt_runs() {
    let farm = Farm::new().await;
    let (fence, mut writer) = farm.claim(1).await;
    let text = "x".repeat(1 << 16);
    let count = limits::LOG_BLOCKS_KEPT_BYTES_MAX / text.len();
    for _ in 0..count {
        farm.write(fence, &mut writer, stdout(&text)).await;
    }
    for logs in [&farm.logs, &farm.elsewhere()] {
        let whole = logs.text(farm.job, Some(1)).await.unwrap();
        let length = whole.length();
        assert_eq!(length, u64::try_from(count * (text.len() + 1)).unwrap());
        let mut part = whole.only(100..length - 7);
        let mut read = 0;
        while let Some(bytes) = part.next().await.unwrap() {
            read += u64::try_from(bytes.len()).unwrap();
        }
        assert_eq!(read, length - 107);
    }
}

/// The end of a part is an end, whatever the attempt writes behind it.
#[tokio::test]
async fn a_follower_of_a_part_ends_with_it() {
    let farm = Farm::new().await;
    let (fence, mut writer) = farm.claim(1).await;
    for text in ["one", "two", "three", "four"] {
        farm.write(fence, &mut writer, stdout(text)).await;
    }
    let query = LogQuery { last: Some(2), ..LogQuery::of_attempt(1) };
    let mut reader = farm.logs.read(farm.job, query.following()).await.unwrap();
    let followed = tokio::time::timeout(std::time::Duration::from_secs(20), all(&mut reader)).await;
    assert_eq!(followed.expect("it does not wait for more").concat(), b"one\ntwo\n");
    assert!(farm.store.get(farm.job).await.unwrap().finished_at.is_none());
}

/// What servers make of whole blocks is made once for all who follow, and of chosen lines for each.
#[tokio::test]
async fn forms_of_whole_blocks_are_made_once() {
    let farm = Farm::new().await;
    let (fence, mut writer) = farm.claim(1).await;
    let line = |text| (1_000, Some(0), LogStream::Stdout, text);
    farm.write(fence, &mut writer, lines(&[line("one"), line("two")])).await;
    let made = std::cell::Cell::new(0);
    let make = |part: &LogPart| {
        made.set(made.get() + 1);
        vec![part.text()]
    };
    let whole = LogQuery::default();
    let second = LogQuery::default().behind(LogPosition { attempt: 1, line: 1 });
    let chosen = LogQuery { step: Some(9), ..LogQuery::default() };
    for (query, expected, count) in
        [(&whole, "one\ntwo\n", 1), (&whole, "one\ntwo\n", 1), (&second, "two\n", 2), (&chosen, "", 3)]
    {
        let mut reader = farm.logs.read(farm.job, query.clone()).await.unwrap();
        let part = reader.next().await.unwrap().unwrap();
        assert_eq!(part.made(LogForm::Messages, make).concat(), expected.as_bytes(), "{query:?}");
        assert_eq!(made.get(), count, "{query:?}");
    }
    let part = farm.logs.read(farm.job, whole).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(part.made(LogForm::JsonLines, make).len(), 1);
    assert_eq!(made.get(), 4, "each form is made for itself");
}
