//! `melange remote logs`.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use melange_remote_sdk::api::v1::{JobView, LogLineView};
use melange_remote_sdk::client::{Client, LogQuery};
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::job::{JobId, LogPosition};
use melange_remote_sdk::limits;

use super::{POLL, client_and_id};
use crate::args::{LogsArgs, Output};
use crate::exit::Exit;
use crate::progress::SILENCE;
use crate::{note, out, render};

/// The first look at a job that says nothing is early: one that waits may do so for long.
const FIRST_LOOK: Duration = Duration::from_millis(300);

pub(super) async fn run(args: &LogsArgs, output: Output) -> Result<Exit> {
    let (client, id) = client_and_id(&args.server, &args.job).await?;
    let query = query(args)?;
    if args.follow || args.timestamps || output == Output::Json {
        return lines(&client, id, query, args.timestamps, output).await;
    }
    let mut log = client.log(id, &query).await?;
    let mut raw = out::Raw::default();
    while let Some(chunk) = log.next().await {
        raw.print(&chunk?)?;
    }
    Ok(Exit::Ok)
}

fn query(args: &LogsArgs) -> Result<LogQuery> {
    let mut query = LogQuery::default();
    query.attempt = args.attempt;
    query.since.clone_from(&args.since);
    // People count as the log does, from 1.
    query.step = match args.step.as_deref().map(|step| (step, step.parse::<u32>())) {
        Some((_, Ok(number))) => {
            let index = number.checked_sub(1);
            Some(index.ok_or_else(|| Error::invalid("steps are counted from 1"))?.to_string())
        }
        Some((name, Err(_))) => Some(name.to_owned()),
        None => None,
    };
    query.stream.clone_from(&args.stream);
    query.tail = args.tail;
    query.failed = args.failed;
    query.test.clone_from(&args.test);
    query.follow = args.follow;
    Ok(query)
}

/// Prints lines; followed ones until the job has finished, and what goes on while nothing comes. A log that breaks off is
/// taken up behind the last line that came.
async fn lines(
    client: &Client,
    id: JobId,
    mut query: LogQuery,
    timestamps: bool,
    output: Output,
) -> Result<Exit> {
    let mut log = client.log_lines(id, &query).await?;
    let mut failures = 0;
    let mut quiet = Quiet { said: String::new(), heard: Instant::now() };
    let mut patience = FIRST_LOOK;
    loop {
        let come = if query.follow {
            let Ok(come) = tokio::time::timeout(patience, log.next()).await else {
                patience = POLL;
                quiet.look(&client.job(id).await?);
                continue;
            };
            come
        } else {
            log.next().await
        };
        match come {
            None => return Ok(Exit::Ok),
            Some(Ok(lines)) => {
                if let Some(last) = lines.last() {
                    query = query.behind(LogPosition { attempt: last.attempt, line: last.n });
                }
                print(&lines, timestamps, output)?;
                failures = 0;
                quiet.heard = Instant::now();
            }
            Some(Err(error)) if error.kind().is_retryable() && failures < limits::CLIENT_TRIES_MAX => {
                failures += 1;
                log = client.log_lines(id, &query).await?;
            }
            Some(Err(error)) => return Err(error),
        }
    }
}

fn print(lines: &[LogLineView], timestamps: bool, output: Output) -> Result<()> {
    if output == Output::Json {
        return lines.iter().try_for_each(out::json_line);
    }
    let mut text = String::new();
    for line in lines {
        if timestamps {
            text.push_str(&format!("{:.3} ", line.time));
        }
        text.push_str(&line.text);
        text.push('\n');
    }
    out::text(&text)
}

/// What a person was told while a log says nothing.
struct Quiet {
    said: String,
    heard: Instant,
}

impl Quiet {
    /// Tells what a job waits for when that is new, and once a minute what goes on.
    fn look(&mut self, job: &JobView) {
        let line = render::progress(job);
        let is_new = matches!(job.status.as_str(), "pending" | "blocked") && line != self.said;
        if !line.is_empty() && (is_new || self.heard.elapsed() >= SILENCE) {
            note::line(&line);
            self.said = line;
            self.heard = Instant::now();
        }
    }
}
