//! The program: reads the command line, runs the command and answers with an exit code.
//!
//! # Decided
//! - **mimalloc instead of the C library's allocator.** A reload holds two generations for a
//!   moment. The C library keeps the room of both: 2.7 kB an account after two reloads instead of
//!   0.95.

use std::process::ExitCode;
use tollgate::cli::{self, BooksElsewhere, Command, Mistakes, tell};

/// The C library's allocator keeps what a reload frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Err(error) = cli::forbid_core_dumps() {
        tell(format_args!(
            "tollgate: core dumps, which would hold secrets, cannot be switched off: {error}"
        ));
        return ExitCode::FAILURE;
    }
    let command = cli::parse();
    // A script must not take "cannot be told" for "no".
    let unable = match command {
        Command::Refund(_) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    };
    run(command).unwrap_or_else(|error| {
        // Mistakes carry their place already; a prefix would break the file:line:column form.
        match error.downcast_ref::<Mistakes>() {
            Some(mistakes) => tell(mistakes),
            None => tell(format_args!("tollgate: {error:#}")),
        }
        if error.is::<BooksElsewhere>() {
            return ExitCode::from(BooksElsewhere::EXIT_CODE);
        }
        match error.is::<cli::MonthAhead>() {
            // As of any flag that cannot be.
            true => ExitCode::from(2),
            false => unable,
        }
    })
}

/// The exit code of the command's answer.
fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(flags) => cli::serve(flags)?,
        Command::Collect(flags) => cli::collect(flags)?,
        Command::Check(flags) => cli::check(&flags)?,
        Command::Key(command) => cli::key(command)?,
        Command::Licence(command) => cli::licence(&command)?,
        Command::Demo(flags) => cli::demo::demo(flags)?,
        Command::Usage(flags) => cli::usage(&flags)?,
        Command::Statement(flags) => cli::statement(&flags)?,
        Command::Report(flags) => cli::report(&flags)?,
        Command::Price(flags) => cli::price(flags)?,
        Command::Refund(flags) => {
            let is_paid_back = cli::refund(&flags)?;
            // "No" is an answer, which stands on standard output: there is no error to tell.
            if !is_paid_back {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Verify(flags) => cli::verify(&flags)?,
        Command::Records(flags) => cli::records(&flags)?,
        Command::Events(flags) => cli::events(&flags)?,
        Command::Probe(flags) => cli::probe(&flags)?,
        Command::Explain(flags) => cli::explain(&flags)?,
        Command::Backup(flags) => cli::backup(&flags)?,
        Command::Restore(flags) => cli::restore(&flags)?,
        Command::Completions(flags) => cli::completions(&flags)?,
        Command::Man(flags) => cli::man(&flags)?,
    }
    Ok(ExitCode::SUCCESS)
}
