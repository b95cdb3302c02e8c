//! The `melange` command.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod commands;
mod exit;
mod render;
mod template;

fn main() -> ExitCode {
    melange_remote_sdk::sandbox::run_if_asked();
    work()
}

#[tokio::main]
async fn work() -> ExitCode {
    let args = args::Args::parse();
    commands::init_logging(args.verbose);
    match commands::run(args).await {
        Ok(code) => code.into(),
        Err(error) => {
            eprint!("{}", render::error(&error));
            exit::code_of(&error).into()
        }
    }
}
