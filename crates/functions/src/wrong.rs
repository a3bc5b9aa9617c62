//! What is wrong with the sources of a function, said so that their author can mend it.

use std::time::Duration;

use capabilities::functions::{Files, Kind};
use capabilities::hosting::SitePath;
use kernel::{Code, Error};
use sandbox::session::Ran;

use crate::build::BUILD;

/// Bytes of what a build says that are passed on.
const SAID: usize = 4_000;

/// Why a module does not load, at the file where that shows.
pub fn does_not_start(error: crate::Error, files: &Files) -> Error {
    let Some(failure) = error.failure().cloned() else { return error.into() };
    let crate::Failure { message, hint, stack, file, line, column, frame, .. } = failure;
    let stack = stack.unwrap_or_default().replace("/workspace/", "");
    let source = |path: &str| files.keys().find(|known| known.as_str() == path);
    let said = file.as_deref().and_then(|file| source(file.trim_start_matches("/workspace/")));
    let said = said.map(|path| (path, line.map(|line| (line, column.unwrap_or(1)))));
    // The uppermost of its own files that the stack goes through.
    let place = said.or_else(|| {
        stack.split([' ', '(', ')', '\n']).find_map(|word| {
            let (rest, column) = word.rsplit_once(':')?;
            let (path, line) = rest.rsplit_once(':')?;
            Some((source(path)?, Some((line.parse().ok()?, column.parse().ok()?))))
        })
    });
    let mut text = format!("the function does not start: {message}");
    if let Some((path, Some((line, column)))) = place {
        text.push_str(&format!(" ({path}:{line}:{column})"));
    }
    if let Some(more) = frame.filter(|it| !it.is_empty()).or(Some(stack).filter(|it| !it.is_empty())) {
        text.push('\n');
        text.push_str(&more);
    }
    Error::invalid(place.map_or_else(|| "/files".to_owned(), |(path, _)| at(path)), text).hint(hint)
}

/// Why a service does not come, at what its author says of it.
pub fn does_not_serve(error: crate::Error) -> Error {
    let Some(crate::Failure { kind, message, hint, stack, .. }) = error.failure().cloned() else {
        let text = error.said_of(Kind::Service);
        let error = Error::from(error);
        return match error.code() {
            Code::Unavailable => Error::new(Code::Unavailable, text)
                .retry_after(Duration::from_secs(5))
                .hint("deploy it again in a moment"),
            _ => error,
        };
    };
    let at = if kind == "health" { "/health/path" } else { "/command" };
    let mut text = format!("the service does not start: {message}");
    if let Some(last) = stack {
        text.push_str("\nIt has said last:\n");
        text.push_str(&last);
    }
    Error::invalid(at, text).hint(hint)
}

/// The pointer to a file.
fn at(path: &SitePath) -> String {
    format!("/files/{}", path.as_str().replace('~', "~0").replace('/', "~1"))
}

/// The last that a command has said.
pub fn said(ran: &Ran) -> String {
    let all = [&ran.stderr.head, &ran.stderr.tail, &ran.stdout.head, &ran.stdout.tail];
    let text: String = all.into_iter().filter(|it| !it.is_empty()).cloned().collect::<Vec<_>>().join("\n");
    let text = text.replace(&format!("{BUILD}/"), "");
    let text = text.trim();
    let from = text.len().saturating_sub(SAID);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[from..].to_owned()
}

/// What the bundler says of sources that it cannot read, at the first file that it names.
pub fn broken(said: &str, files: &Files) -> Error {
    let named = said.split_whitespace().find_map(|word| {
        let path = word.trim_start_matches("./").split(':').next()?;
        files.keys().find(|file| file.as_str() == path)
    });
    Error::invalid(named.map_or_else(|| "/files".to_owned(), at), format!("it does not build: {said}"))
        .hint("mend what is said at that line, and deploy it again; the version before goes on meanwhile")
}

pub fn too_large(error: sandbox::session::Error) -> Error {
    let error = Error::from(error);
    match error.code() {
        Code::TooLarge => error.field("/files").hint("use fewer or smaller packages"),
        _ => error,
    }
}
