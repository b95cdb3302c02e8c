//! Starts the build service.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use melange_remote_sdk::error::{Error, chain};
use melange_server::config::{Config, Refused, Task};
use melange_server::telemetry;

/// Says something on standard error, which may be closed.
fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "melange-server: {text}");
}

/// How long the end of the program waits for what goes on in the background.
const CLOSING: Duration = Duration::from_secs(2);

/// Many small texts on several threads are what the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    melange_remote_sdk::sandbox::run_if_asked();
    let environment = |name: &str| std::env::var(name).ok();
    let task = match Config::read_task(std::env::args_os(), &environment) {
        Ok(task) => task,
        Err(Refused::Answered(text)) => {
            let written = std::io::stdout().write_all(text.as_bytes());
            return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(Refused::Usage(error)) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
        Err(refused) => {
            say(refused);
            return ExitCode::from(2);
        }
    };
    let (Task::Serve(config) | Task::Collect(config, _)) = &task;
    let log = telemetry::start(config.log_format, environment("MELANGE_LOG").as_deref());
    let runtime = match melange_server::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(format_args!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        match &task {
            Task::Serve(config) => melange_server::run(config).await,
            Task::Collect(config, options) => melange_server::gc::run(config, *options).await,
        }
    });
    // What is left are reads of logs and the like, which must not hold up the end, and the folder of a launcher that waited
    // for a guest, which is removed.
    runtime.shutdown_timeout(CLOSING);
    drop(log);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(chain(error.as_ref()));
            let known = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
            if let Some(hint) = known.and_then(Error::hint_text) {
                say(format_args!("hint: {hint}"));
            }
            ExitCode::FAILURE
        }
    }
}
