//! The `melange` command.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser;
use melange_remote_sdk::error::Error;

use crate::args::{LogLevel, LogPolicy, Output};
use crate::exit::Exit;

mod args;
mod commands;
mod exit;
mod input;
mod note;
mod out;
mod progress;
mod render;
mod shown;
mod template;

/// Many small texts on several threads are what the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    melange_remote_sdk::sandbox::run_if_asked();
    work()
}

#[tokio::main]
async fn work() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return answer(&error).into(),
    };
    let output = args.output();
    if let Err(error) = place_notes(&args) {
        return end(&error, output).into();
    }
    commands::init_logging(args.verbose || args.log_level == Some(LogLevel::Debug));
    match Box::pin(commands::run(args.command, output)).await {
        Ok(code) => code.into(),
        Err(error) => end(&error, output).into(),
    }
}

/// Sends what is said to where the call wants it.
fn place_notes(args: &args::Args) -> Result<(), Error> {
    let file = match &args.log_policy {
        Some(LogPolicy::File(path)) => Some(path.as_path()),
        Some(LogPolicy::Discard) => None,
        Some(LogPolicy::Stderr) | None if args.log_level == Some(LogLevel::Error) => None,
        Some(LogPolicy::Stderr) | None => return Ok(()),
    };
    note::send_to(file).map_err(|e| input::failed("write to", file.unwrap_or(std::path::Path::new("")), e))
}

/// Tells the error that ended the command.
fn end(error: &Error, output: Output) -> Exit {
    // Whoever reads the results has seen enough.
    if out::reader_is_gone(error) {
        return Exit::Ok;
    }
    note::error(error, output);
    exit::code_of(error)
}

/// Prints the help that was asked for, or tells what is wrong with the call.
fn answer(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => Exit::Ok,
            Err(failure) => end(&out::failed(failure), Output::Text),
        };
    }
    if wants_json() {
        note::error(&usage(error), Output::Json);
    } else {
        // Nobody is left to tell when standard error is closed.
        let _ = error.print();
    }
    Exit::Usage
}

/// Whether a call that cannot be read asks for JSON.
fn wants_json() -> bool {
    let words: Vec<_> = std::env::args_os().collect();
    let names = ["--output", "--message-format"];
    words.windows(2).any(|pair| names.iter().any(|name| pair[0] == *name) && pair[1] == "json")
        || words.iter().any(|word| names.iter().any(|name| *word == *format!("{name}=json")))
}

/// A mistake in the call as one of our own errors: its first sentence, and the tips behind it as the hint.
fn usage(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(str::trim).filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default();
    let words: Vec<&str> = first.trim_start_matches("error: ").split_whitespace().collect();
    let hint: Vec<&str> = parts
        .flat_map(str::lines)
        .filter_map(|line| line.trim().strip_prefix("tip: "))
        .chain(["`--help` shows what there is"])
        .collect();
    Error::invalid(words.join(" ")).hint(hint.join("; "))
}
