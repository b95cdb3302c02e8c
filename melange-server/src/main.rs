//! Starts the build service.

use std::process::ExitCode;

use melange_server::config::{Config, Refused};
use melange_server::telemetry;

fn main() -> ExitCode {
    melange_remote_sdk::sandbox::run_if_asked();
    let environment = |name: &str| std::env::var(name).ok();
    let config = match Config::read(std::env::args_os(), &environment) {
        Ok(config) => config,
        Err(Refused::Usage(error)) => error.exit(),
        Err(refused) => {
            eprintln!("melange-server: {refused}");
            return ExitCode::from(2);
        }
    };
    telemetry::start(config.log_format, environment("MELANGE_LOG").as_deref());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("melange-server: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(melange_server::run(&config));
    // What is left are reads of logs and the like; they must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("melange-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
