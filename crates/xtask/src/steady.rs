//! A whole run of tests, and a second look at the few that failed in it: on a busy machine a test may fail of the
//! company it was in. What fails alone, too, is broken; what passes then is unsteady, and is named.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::workspace::{cargo, run_within, say};

/// Tests that are looked at again. Where more than these fail it is not the company.
const FEW: usize = 5;

/// How often each of them has to pass alone.
const ALONE: usize = 3;

/// How long one test may take.
const ONE: Duration = Duration::from_secs(10 * 60);

/// How long what the run has printed is waited for after its end: what it has left behind may hold the pipe open.
const REST: Duration = Duration::from_secs(5);

/// The tests that failed, by the arguments with which cargo runs their program again.
type Failures = BTreeMap<String, Vec<String>>;

/// Runs `tests`, and those again that failed, each alone and three times, where they are few.
///
/// # Errors
/// Where it takes longer than `limit`, where a test fails alone or more than a few fail, and where something fails of
/// which no test is known.
pub fn run(limit: Duration, tests: Command) -> anyhow::Result<()> {
    run_telling(limit, tests, || Box::new(std::io::stdout()))
}

/// Where what the tests print goes.
type Out = fn() -> Box<dyn Write + Send>;

fn run_telling(limit: Duration, tests: Command, out: Out) -> anyhow::Result<()> {
    let variables: Vec<_> = tests
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_os_string(), value?.to_os_string())))
        .collect();
    let (result, read) = watched(limit, tests, out)?;
    let Err(error) = result else { return Ok(()) };
    let Ok(failures) = read.end() else { return Err(error) };
    let all: Vec<(&String, &String)> =
        failures.iter().flat_map(|(program, tests)| tests.iter().map(move |test| (program, test))).collect();
    if all.is_empty() || all.len() > FEW {
        return Err(error);
    }
    say(&format!("{} failed in company; each is run {ALONE} times alone", all.len()));
    for (program, test) in &all {
        for _ in 0..ALONE {
            // All packages, so that nothing is compiled with other features than it was.
            let mut alone = cargo(&["test", "--locked", "--workspace"]);
            let target = program.split(' ').skip_while(|word| *word == "-p").skip(1);
            alone.args(target).args(["--", "--exact", test]).envs(variables.iter().cloned());
            let (result, read) = watched(ONE, alone, out)?;
            result.context("it fails alone, too")?;
            ensure!(read.passed >= 1, "{test}: it was not found alone");
        }
    }
    for (program, test) in &all {
        say(&format!("UNSTEADY: {test} ({program}) failed in company and passes alone; it is to be mended"));
    }
    Ok(())
}

/// Runs tests, passes on what they print, and says how it went and what was read in it.
fn watched(limit: Duration, mut tests: Command, out: Out) -> anyhow::Result<(anyhow::Result<()>, Read)> {
    let (reader, writer) = std::io::pipe().context("a pipe")?;
    tests.stdout(writer.try_clone().context("a pipe")?).stderr(writer);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(watch(reader, out())));
    let result = run_within(limit, &mut tests);
    // It holds the pipe's other end.
    drop(tests);
    let hung =
        |_| Read { unknown: vec!["something left behind holds the output".to_owned()], ..Read::default() };
    Ok((result, told.recv_timeout(REST).unwrap_or_else(hung)))
}

/// Passes on what comes until its end.
fn watch(reader: PipeReader, mut out: Box<dyn Write + Send>) -> Read {
    let mut reader = BufReader::new(reader);
    let mut read = Read::default();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        // Without a reader there is nobody to tell.
        let _ = out.write_all(&line);
        read.line(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    read
}

/// What is known of a run from what it has printed so far.
#[derive(Debug, Default)]
struct Read {
    /// Tests that passed.
    passed: usize,
    /// Of the program that runs.
    failed: Vec<String>,
    failures: Failures,
    /// Programs that failed without a test that did.
    unknown: Vec<String>,
}

impl Read {
    fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            // What is expected to panic says so behind its name.
            let name = name.strip_suffix(" - should panic").unwrap_or(name);
            self.failed.push(name.to_owned());
        } else if line.starts_with("test ") && line.ends_with(" ... ok") {
            self.passed += 1;
        } else if let Some(rest) = line.strip_prefix("error: ")
            && let Some((what, program)) = rest.split_once(", to rerun pass `")
        {
            let program = program.trim_end_matches('`').to_owned();
            let failed = std::mem::take(&mut self.failed);
            if failed.is_empty() || !matches!(what, "test failed" | "doctest failed") {
                self.unknown.push(program);
            } else {
                self.failures.entry(program).or_default().extend(failed);
            }
        } else if line.starts_with("error: could not compile") {
            self.unknown.push(line.to_owned());
        }
    }

    fn end(self) -> anyhow::Result<Failures> {
        ensure!(self.unknown.is_empty(), "no test is known of: {}", self.unknown.join(", "));
        if !self.failed.is_empty() {
            bail!("no program is known of: {}", self.failed.join(", "));
        }
        Ok(self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> anyhow::Result<Failures> {
        let mut read = Read::default();
        lines.lines().for_each(|line| read.line(line));
        read.end()
    }

    #[test]
    fn a_test_that_failed_is_known_with_its_program() {
        let failures = read(
            "     Running tests/one.rs (target/debug/deps/one-1)\n\
             test a::b ... ok\n\
             test a::c ... FAILED\n\
             test a::d - should panic ... FAILED\n\
             test result: FAILED. 1 passed; 2 failed\n\
             error: test failed, to rerun pass `-p store --test one`\n\
             test a::c ... ok\n\
             error: 1 target failed:\n    `-p store --test one`",
        )
        .unwrap();
        let expected = vec!["a::c".to_owned(), "a::d".to_owned()];
        assert_eq!(failures, BTreeMap::from([("-p store --test one".to_owned(), expected)]));
    }

    #[test]
    fn what_failed_without_a_test_is_not_looked_at_again() {
        for lines in [
            "error: test failed, to rerun pass `-p store --lib`",
            "error: could not compile `store` (lib) due to 1 previous error",
            "test a::c ... FAILED",
            "test a::c ... FAILED\nerror: process didn't end, to rerun pass `-p store --lib`",
        ] {
            assert!(read(lines).is_err(), "{lines}");
        }
    }

    /// What is printed here would be taken for what the run of this test prints.
    fn run_silently(limit: Duration, tests: Command) -> anyhow::Result<()> {
        run_telling(limit, tests, || Box::new(std::io::sink()))
    }

    /// Prints what a run prints, and ends as one that failed.
    fn printing(lines: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("printf '{lines}'; exit 101")]);
        command
    }

    #[test]
    fn what_fails_alone_too_and_what_is_more_than_a_few_fails_the_run() {
        let end = "error: test failed, to rerun pass `-p xtask --bin xtask`\\n";
        let many: String = (0..=FEW).map(|at| format!("test a{at} ... FAILED\\n")).collect();
        let error = run_silently(ONE, printing(&(many + end))).unwrap_err();
        assert!(error.to_string().starts_with("sh "), "{error:#}");
        let error = run_silently(ONE, printing("out of memory\\n")).unwrap_err();
        assert!(error.to_string().starts_with("sh "), "{error:#}");
        run_silently(ONE, Command::new("true")).unwrap();
        let broken = "test a ... FAILED\\nerror: test failed, to rerun pass `-p xtask --test no-such`\\n";
        let error = run_silently(ONE, printing(broken)).unwrap_err();
        assert!(format!("{error:#}").contains("fails alone"), "{error:#}");
    }
}
